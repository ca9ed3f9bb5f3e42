//! `throttle allow` and `throttle known`: two lists of prefixes in the policy.

use clap::Subcommand;
use ipnet::IpNet;
use throttle_agent::{
    api::wire::{Envelope, Prefixes, PrefixesDelete, PrefixesRequest, paths},
    policy::Prefix,
};

use super::{Context, failure::Failure, output, writing, writing::Writing};

/// Which list a command is about.
pub(crate) struct List {
    add: &'static str,
    delete: &'static str,
    empty: &'static str,
}

/// What no block and no limit touches.
pub(crate) const ALLOWED: List = List {
    add: paths::ALLOWS,
    delete: paths::ALLOWS_DELETE,
    empty: "no source is allowed past the limits; add one with `throttle allow add ADDRESS`",
};

/// What is known to be genuine.
pub(crate) const KNOWN: List = List {
    add: paths::KNOWN,
    delete: paths::KNOWN_DELETE,
    empty: "no source is known; add one with `throttle known add ADDRESS`",
};

/// What to do with a list of prefixes.
#[derive(Debug, Subcommand)]
pub(crate) enum PrefixCommand {
    /// Add addresses or prefixes, all or none
    #[command(after_help = "Examples:\n  throttle allow add 192.0.2.7 2001:db8:1::/48 -m 'the office'\n  \
                            throttle known add 198.51.100.0/24")]
    Add {
        /// Whom, e.g. 192.0.2.7 or 2001:db8::/32
        #[arg(required = true, value_name = "PREFIX")]
        prefixes: Vec<Prefix>,
        #[command(flatten)]
        writing: Writing,
    },
    /// List them
    List,
    /// Take addresses or prefixes off the list, all or none
    Delete {
        /// Whom, as they are listed
        #[arg(required = true, value_name = "PREFIX")]
        prefixes: Vec<Prefix>,
        #[command(flatten)]
        writing: Writing,
    },
}

impl PrefixCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context, list: &List) -> Result<(), Failure> {
        let client = context.client()?;
        match self {
            Self::Add { prefixes, writing } => {
                let request = PrefixesRequest { prefixes: nets(prefixes), write: writing.wire() };
                writing::tell(context, &client.post(list.add, &request)?)
            }
            Self::Delete { prefixes, writing } => {
                let request = PrefixesDelete { prefixes: nets(prefixes), write: writing.wire() };
                writing::tell(context, &client.post(list.delete, &request)?)
            }
            Self::List => {
                let answer = client.get(list.add)?;
                if context.output.json {
                    return output::data(&answer.text());
                }
                let listed = answer.parse::<Envelope<Prefixes>>()?.body.prefixes;
                if listed.is_empty() {
                    output::say(list.empty);
                }
                output::data(&render(&listed))
            }
        }
    }
}

fn nets(prefixes: Vec<Prefix>) -> Vec<IpNet> {
    prefixes.into_iter().map(Prefix::net).collect()
}

/// One a line, so that the list pipes into other tools.
fn render(prefixes: &[IpNet]) -> String {
    let lines: Vec<_> = prefixes.iter().map(|&net| Prefix::from(net).to_string()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_one_prefix_a_line() {
        let listed = ["192.0.2.7/32", "2001:db8::/32"].map(|text| text.parse().unwrap());
        assert_eq!(render(&listed), "192.0.2.7\n2001:db8::/32");
    }
}
