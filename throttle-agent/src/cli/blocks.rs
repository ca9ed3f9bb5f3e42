//! `throttle block`: sources that are refused, one by one or by the hundred thousand.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use throttle_agent::{
    api::wire::{Block, Blocks, BlocksRequest, Envelope, NewBlock, PrefixesDelete, Write, paths},
    policy::{Diagnostic, Diagnostics, Fault, Prefix, units::Span},
};

use super::{
    Context,
    failure::Failure,
    output::{self, Paint},
    policy::Source,
    quantity::{moment, until},
    session::{self, Session},
    table::Table,
    words::address,
    writing,
};

/// Blocks of one command; the API's own bound.
const MOST: usize = 100_000;
/// Bad lines that are named; the rest are counted.
const NAMED: usize = 20;

/// What to do with blocks.
#[derive(Debug, Subcommand)]
pub(crate) enum BlockCommand {
    /// Refuse addresses or prefixes, all or none; 100 000 in one command
    #[command(
        after_help = "Examples:\n  throttle block add 192.0.2.7 2001:db8::/32 --for 10m --reason 'scans ports'\n  \
                            throttle block add --file drop.txt --for 1d\n  \
                            curl -s https://example.org/list.txt | throttle block add --file -"
    )]
    Add(Add),
    /// List blocks and when they end
    List {
        /// Only what covers this address
        #[arg(long, value_name = "IP", value_parser = address)]
        contains: Option<IpAddr>,
    },
    /// End blocks that were added by command or by the penalty of a limit, all or none; what led to a penalty is forgotten, also
    /// of a source that has served its time
    #[command(after_help = "Examples:\n  throttle block delete 192.0.2.7\n  throttle block delete --all")]
    Delete {
        /// Whom, as they are listed
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "PREFIX")]
        prefixes: Vec<Prefix>,
        /// Every block that was added by command or by a penalty
        #[arg(long)]
        all: bool,
    },
}

/// Whom to block.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Whom, e.g. 192.0.2.7 or 2001:db8::/32
    #[arg(required_unless_present = "file", value_name = "PREFIX")]
    prefixes: Vec<Prefix>,
    /// Also those in a file, one a line, `#` starts a comment; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// For how long, e.g. 10m or 1d; by default for ever
    #[arg(long = "for", value_name = "TIME", allow_hyphen_values = true)]
    span: Option<Span>,
    /// Why, for whoever finds the block
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Block everybody, where that is what the prefix says
    #[arg(long)]
    force: bool,
    /// Do not keep the SSH session that this comes from allowed where it would be hit
    #[arg(long)]
    lock_me_out: bool,
}

impl BlockCommand {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Add(add) => {
                let request = add.request()?;
                let answer = context.client()?.post(paths::BLOCKS, &request)?;
                writing::tell_blocks(context, &answer)
            }
            Self::List { contains } => {
                let answer = context.client()?.get(paths::BLOCKS)?;
                if context.output.json && contains.is_none() {
                    return output::data(&answer.text());
                }
                let mut listed = answer.parse::<Envelope<Blocks>>()?;
                if let Some(address) = contains {
                    listed.body.blocks.retain(|block| block.prefix.contains(&address));
                }
                if context.output.json {
                    return output::json(&listed);
                }
                if listed.body.blocks.is_empty() {
                    output::say(&match contains {
                        Some(address) => format!("no block covers {address}"),
                        None => "nothing is blocked; `throttle block add --help` shows how".to_owned(),
                    });
                    return Ok(());
                }
                output::data(&render(&listed.body.blocks, Timestamp::now(), context.output.paint))
            }
            Self::Delete { prefixes, all } => delete(context, prefixes, all),
        }
    }
}

impl Add {
    fn request(self) -> Result<BlocksRequest, Failure> {
        let mut prefixes = self.prefixes;
        if let Some(file) = &self.file {
            prefixes.extend(listed(&Source::read(file)?)?);
        }
        if prefixes.is_empty() {
            return Err(Failure::Usage(
                "nobody to block: the file names no address; put one a line, e.g. 192.0.2.7".into(),
            ));
        }
        if prefixes.len() > MOST {
            let count = prefixes.len();
            return Err(Failure::Usage(format!(
                "{count} prefixes are more than the {MOST} of one command; split them, or block whole prefixes"
            )));
        }
        let seconds = self.span.map(Span::seconds);
        if seconds == Some(0) {
            return Err(Failure::Usage("--for 0s blocks nobody; name a longer time, e.g. 10m".into()));
        }
        let block = |prefix: Prefix| NewBlock { prefix: prefix.net(), seconds, reason: self.reason.clone() };
        let own = Session::writing(session::own());
        let write = Write { force: self.force, lock_out: self.lock_me_out, ..own };
        Ok(BlocksRequest { blocks: prefixes.into_iter().map(block).collect(), write })
    }
}

/// The prefixes of a file, one a line; or every line that holds none.
fn listed(source: &Source) -> Result<Vec<Prefix>, Failure> {
    let (mut prefixes, mut faults) = (Vec::new(), Vec::new());
    for (index, line) in source.text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        match entry.parse::<Prefix>() {
            Ok(prefix) => prefixes.push(prefix),
            Err(fault) => {
                let column = line.chars().take_while(|letter| letter.is_whitespace()).count();
                let place = |number: usize| u32::try_from(number + 1).ok();
                faults.push(Diagnostic { line: place(index), column: place(column), ..fault.at("") });
            }
        }
    }
    if faults.is_empty() {
        return Ok(prefixes);
    }
    let unnamed = faults.len().saturating_sub(NAMED);
    faults.truncate(NAMED);
    if unnamed > 0 {
        faults.push(Fault::new(format!("and {unnamed} more lines"), "").at(""));
    }
    let (faults, file) = (Diagnostics(faults), source.name.clone());
    Err(Failure::File { title: "Nothing is blocked: the list is wrong", faults, file })
}

fn delete(context: &Context, prefixes: Vec<Prefix>, all: bool) -> Result<(), Failure> {
    let client = context.client()?;
    let mut prefixes: Vec<_> = prefixes.into_iter().map(Prefix::net).collect();
    if all {
        let listed = client.get(paths::BLOCKS)?.parse::<Envelope<Blocks>>()?.body.blocks;
        let (timed, permanent): (Vec<Block>, Vec<Block>) = listed.into_iter().partition(|block| block.added.is_some());
        if !permanent.is_empty() {
            let count = permanent.len();
            output::say(&format!("{count} blocks stand in the policy and stay; `throttle policy apply` ends them"));
        }
        if timed.is_empty() {
            output::say("no block was added by command");
            return Ok(());
        }
        prefixes.extend(timed.iter().map(|block| block.prefix));
    }
    let request = PrefixesDelete { prefixes, write: Session::writing(session::own()) };
    writing::tell_blocks(context, &client.post(paths::BLOCKS_DELETE, &request)?)
}

fn render(blocks: &[Block], now: Timestamp, paint: Paint) -> String {
    let mut table = Table::new(&["SOURCE", ">ENDS IN", "REASON", "BY", "SINCE"]);
    for block in blocks {
        table.row([
            Prefix::from(block.prefix).to_string().into(),
            block.until.map_or("never".to_owned(), |end| until(end, now)).into(),
            block.reason.as_deref().unwrap_or_default().into(),
            block.author.as_deref().unwrap_or("policy").into(),
            block.added.map(moment).unwrap_or_default().into(),
        ]);
    }
    table.render(paint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_its_bad_lines_are_named() {
        let file = |text: &str| listed(&Source { name: "drop.txt".to_owned(), text: text.to_owned() });
        let good = "# drop list\n192.0.2.0/24 # a network\n\n  2001:db8::1\n";
        let read: Vec<_> = file(good).unwrap().iter().map(Prefix::to_string).collect();
        assert_eq!(read, ["192.0.2.0/24", "2001:db8::1"]);
        let text = file("192.0.2.7\n192.0.2.300\n\n  example.org\n").unwrap_err().to_string();
        assert!(text.contains("drop.txt:2:1: `192.0.2.300`") && text.contains("drop.txt:4:3: `example.org`"), "{text}");
        let text = file(&"x\n".repeat(NAMED + 5)).unwrap_err().to_string();
        assert!(text.ends_with("and 5 more lines"), "{text}");
    }

    #[test]
    fn a_list_says_when_each_block_ends() {
        let now: Timestamp = "2026-11-23T19:00:00Z".parse().unwrap();
        let blocks = [
            Block {
                prefix: "203.0.113.0/24".parse().unwrap(),
                until: None,
                reason: None,
                author: None,
                added: None,
                sentence: None,
            },
            Block {
                prefix: "192.0.2.7/32".parse().unwrap(),
                until: Some("2026-11-23T19:09:58Z".parse().unwrap()),
                reason: Some("scans ports".to_owned()),
                author: Some("root".to_owned()),
                added: Some("2026-11-23T18:59:58Z".parse().unwrap()),
                sentence: None,
            },
        ];
        let expected = "\
SOURCE             ENDS IN  REASON       BY      SINCE
203.0.113.0/24       never               policy
192.0.2.7       9 min 58 s  scans ports  root    2026-11-23 18:59:58Z
";
        assert_eq!(render(&blocks, now, Paint::PLAIN), expected);
    }
}
