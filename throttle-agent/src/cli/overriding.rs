//! `throttle limit override`: what single tenants or sources have of a limit instead of what all have.

use clap::{Args, builder::NonEmptyStringValueParser};
use throttle_agent::{
    api::wire::{Envelope, LimitRequest, LimitView, paths},
    policy::{
        Guarantee, Limit, Override, Prefix,
        units::{Quantity, Rate},
    },
};
use throttle_common::connections;

use super::{Context, client::under, failure::Failure, words::whole, writing, writing::Writing};

pub(crate) const EXAMPLES: &str = "\
Examples:
  throttle limit override tenants --tenant gold --rate 5000/s --guarantee 2000/s
  throttle limit override packets --source 10.1.0.0/16 --rate 10000/s --burst 20000
  throttle limit override packets --source 10.1.0.0/16 --remove";

/// An override as its flags say it. What no flag names stays as it is, or is the limit's in a new one.
#[derive(Debug, Default, Args)]
pub(crate) struct Overriding {
    /// The limit's name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// The tenant that it is for
    #[arg(long, value_name = "NAME", required_unless_present = "sources", conflicts_with = "sources")]
    tenant: Option<String>,
    /// An address or prefix each of whose sources it is for; may be given several times
    #[arg(long = "source", value_name = "PREFIX", value_delimiter = ',')]
    sources: Vec<Prefix>,
    /// What it may do in the long run, e.g. 1000/s
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, conflicts_with = "concurrent")]
    rate: Option<Rate>,
    /// How many connections it may have open at once
    #[arg(long, value_name = "COUNT", value_parser = whole(1, connections::MOST), allow_hyphen_values = true)]
    concurrent: Option<u32>,
    /// What it may do at once, e.g. 50 or 64KiB
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
    burst: Option<Quantity>,
    /// What it always has, e.g. 100/s, of open connections a number; 0/s or 0 for nothing
    #[arg(long, value_name = "RATE|COUNT", allow_hyphen_values = true)]
    guarantee: Option<Guarantee>,
    /// What of the guarantee it may use at once
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
    guarantee_burst: Option<Quantity>,
    /// Remove the override: it has what all have
    #[arg(long, conflicts_with_all = ["rate", "concurrent", "burst", "guarantee", "guarantee_burst"])]
    remove: bool,
    #[command(flatten)]
    writing: Writing,
}

impl Overriding {
    /// Writes the limit with it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let client = context.client()?;
        let path = under(paths::LIMITS, &self.name);
        let held = client.get(&path)?.parse::<Envelope<LimitView>>()?.body.limit;
        let request = LimitRequest { limit: self.edit(held)?, write: self.writing.wire() };
        writing::tell(context, &client.put(&path, &request)?)
    }

    /// The limit with the override that the flags make of the one that is there.
    fn edit(&self, mut limit: Limit) -> Result<Limit, Failure> {
        let whose = Override { tenant: self.tenant.clone(), sources: self.sources.clone(), ..Override::default() };
        let place = limit.overrides.iter().position(|it| it.is_for(&whose));
        match (place, self.remove) {
            (Some(place), true) => {
                limit.overrides.remove(place);
                return Ok(limit);
            }
            (None, true) => {
                let known: Vec<_> = limit.overrides.iter().map(Override::whose).collect();
                let known =
                    if known.is_empty() { "it has none".to_owned() } else { format!("it has: {}", known.join(", ")) };
                let reason = format!("limit `{}` has no override for {}; {known}", limit.name, whose.whose());
                return Err(Failure::Failed(anyhow::anyhow!(reason)));
            }
            _ => {}
        }
        let held = place.map_or_else(|| whose.clone(), |place| limit.overrides[place].clone());
        let terms = Override {
            rate: self.rate.or(held.rate),
            concurrent: self.concurrent.or(held.concurrent),
            burst: self.burst.or(held.burst),
            guarantee: self.guarantee.or(held.guarantee),
            guarantee_burst: self.guarantee_burst.or(held.guarantee_burst),
            ..whose
        };
        match place {
            Some(place) => limit.overrides[place] = terms,
            None => limit.overrides.push(terms),
        }
        Ok(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throttle_common::words::Unit;

    fn gold() -> Overriding {
        Overriding { name: "tenants".into(), tenant: Some("gold".into()), ..Overriding::default() }
    }

    #[test]
    fn an_override_is_made_changed_and_removed() {
        let limit = Limit::new("tenants", Unit::Packets, "10/s".parse().unwrap());
        let faster = Overriding { rate: Some("90/s".parse().unwrap()), ..gold() };
        let made = faster.edit(limit.clone()).unwrap();
        let sure = Overriding { guarantee: Some("20/s".parse().unwrap()), ..gold() };
        let changed = sure.edit(made).unwrap();
        let [only] = changed.overrides.as_slice() else { panic!("{changed:?}") };
        assert_eq!((only.rate, only.guarantee), (faster.rate, sure.guarantee));
        let remove = Overriding { remove: true, ..gold() };
        assert_eq!(remove.edit(changed).unwrap(), limit);
        let Err(Failure::Failed(error)) = remove.edit(limit) else { panic!("there is none") };
        assert_eq!(error.to_string(), "limit `tenants` has no override for tenant gold; it has none");
    }
}
