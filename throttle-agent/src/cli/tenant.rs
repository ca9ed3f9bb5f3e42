//! `throttle tenant`: names for groups of sources, so that limits can be theirs.

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use throttle_agent::{
    api::wire::{TenantRequest, Tenants, paths},
    policy::{Prefix, Tenant},
};

use super::{
    Context, client::under, entries, failure::Failure, output::Paint, quantity::count, table::Table, writing,
    writing::Writing,
};

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Create a tenant, or replace it as a whole
    #[command(after_help = "Examples:\n  throttle tenant set acme --source 192.0.2.0/24 --source 2001:db8:7::/48\n  \
                            throttle tenant set globex --source 198.51.100.7\n  \
                            throttle limit set tenants --unit connections --rate 500/s --per tenant")]
    Set(Set),
    /// List tenants
    List,
    /// Delete a tenant; its sources are nobody's from then on
    Delete {
        /// Its name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        writing: Writing,
    },
}

/// A tenant as its flags say it.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name: what limits remember of it is kept by it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// An address or prefix whose packets are its; may be given several times. Of prefixes that overlap the longest wins
    #[arg(long = "source", value_name = "PREFIX", value_delimiter = ',', required = true)]
    sources: Vec<Prefix>,
    #[command(flatten)]
    writing: Writing,
}

impl TenantCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Set(Set { name, sources, writing }) => {
                let path = under(paths::TENANTS, &name);
                let request = TenantRequest { tenant: Tenant { name, sources }, write: writing.wire() };
                writing::tell(context, &context.client()?.put(&path, &request)?)
            }
            Self::List => entries::list(
                context,
                paths::TENANTS,
                |all: Tenants| all.tenants,
                "no tenant is named; `throttle tenant set --help` shows how",
                render,
            ),
            Self::Delete { name, writing } => entries::remove(context, paths::TENANTS, &name, &writing),
        }
    }
}

/// Prefixes of a tenant that are shown.
const SHOWN: usize = 4;

fn render(tenants: &[Tenant], paint: Paint) -> String {
    let mut table = Table::new(&["TENANT", ">PREFIXES", "SOURCES"]);
    for tenant in tenants {
        let mut sources: Vec<_> = tenant.sources.iter().take(SHOWN).map(Prefix::to_string).collect();
        if tenant.sources.len() > SHOWN {
            sources.push("...".to_owned());
        }
        table.row([tenant.name.as_str().into(), count(tenant.sources.len() as u64).into(), sources.join(", ").into()]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_some_of_many_prefixes() {
        let tenant = |name: &str, count: u8| Tenant {
            name: name.to_owned(),
            sources: (0..count).map(|number| format!("10.{number}.0.0/16").parse().unwrap()).collect(),
        };
        let expected = "\
TENANT  PREFIXES  SOURCES
acme           1  10.0.0.0/16
globex         5  10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, ...
";
        assert_eq!(render(&[tenant("acme", 1), tenant("globex", 5)], Paint::PLAIN), expected);
    }
}
