//! `throttle policy check`: what is wrong with a policy and which flood fills each of its limits; no agent is asked.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use serde::Serialize;
use throttle_agent::{
    api::wire::{self, CheckReport, Envelope, LimitForecast, RegionLoad},
    datapath::bearable_sets,
    policy::{
        self, Compiled, Layout, Mode,
        forecast::{self, Forecast, Load},
        sharing::Sharing,
    },
};
use throttle_common::{
    packet::Family,
    records::name_str,
    table::{OPEN_WAYS, WAYS},
};

use super::{
    Context, DEFAULT_SETS,
    alike::grouped,
    failure::Failure,
    output::{self, Paint},
    policy::{REFUSED, Source},
    quantity::{count, per_second, percent, span},
    table::{Cell, Table, Tone},
};

/// A policy to look at.
#[derive(Debug, Args)]
#[command(after_help = "\
A flood of ever new sources fills a limit's part of the table; the sources beyond it meet the limit's overflow rule.

Examples:
  throttle policy check policy.toml
  throttle policy check policy.toml --flood 3.5M")]
pub(crate) struct Check {
    /// The policy; `-` reads stdin
    file: PathBuf,
    /// Foretell how a flood of so many packets a second from ever new sources would fare, e.g. 500k or 3.5M
    #[arg(long, value_name = "RATE", value_parser = flood, allow_hyphen_values = true)]
    flood: Option<f64>,
    /// Sets of the table of buckets, as `throttle run --table-sets` has them
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SETS)]
    table_sets: u32,
}

/// What the API says of a policy, and what a flood would make of it.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    check: CheckReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    flood: Option<Flood>,
}

/// A flood and how each region would fare.
#[derive(Debug, Serialize)]
struct Flood {
    packets_per_second: f64,
    regions: Vec<Flooded>,
}

/// A region under a flood.
#[derive(Debug, Serialize)]
struct Flooded {
    limit: String,
    family: &'static str,
    /// Whose sources the places are for.
    sources: Sources,
    /// The share of all slots that are busy, 0 to 0.75.
    occupancy: f64,
    /// The share of new sources that find no place, 0 to 1.
    overflow: f64,
}

/// Whose sources the places of a part of the table are for, in words and in JSON.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Sources {
    Any,
    OfNoTenant,
    OfATenant,
}

impl Sources {
    fn text(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::OfNoTenant => "of no tenant",
            Self::OfATenant => "of a tenant",
        }
    }
}

/// What each part of the table withstands: where tenants divide a region, the part of one of them has its own line.
fn parts(compiled: &Compiled) -> Vec<(Sources, Forecast)> {
    let of = |whole: Forecast| match whole.of_a_tenant() {
        None => vec![(Sources::Any, whole)],
        Some(part) => vec![(Sources::OfNoTenant, whole), (Sources::OfATenant, part)],
    };
    forecast::forecasts(compiled).into_iter().flat_map(of).collect()
}

impl Check {
    /// Does it.
    pub(crate) fn obey(self, context: &Context) -> Result<(), Failure> {
        let source = Source::read(&self.file)?;
        let name = &source.name;
        let refused = |faults| Failure::File { title: REFUSED, faults, file: name.clone() };
        policy::require_words(&source.text).map_err(refused)?;
        let (document, warnings) = policy::parse_with_warnings(&source.text).map_err(refused)?;
        let layout = Layout { sets: self.table_sets, bearable: bearable_sets(), ..Layout::default() };
        let compiled = policy::compile(&document, 1, &layout).map_err(refused)?;
        if context.output.json {
            let warnings = warnings.iter().map(ToString::to_string).collect();
            return output::json(&Envelope::new(report(&compiled, warnings, self.flood)));
        }
        let texts: Vec<_> = warnings.iter().map(|warning| (warning.text(), warning.in_file(name))).collect();
        for warning in grouped(texts.iter().map(|(text, shown)| (text.as_str(), shown.clone()))) {
            context.output.warn(&warning);
        }
        let (services, limits) = (document.services.len(), document.limits.len());
        let mode = match document.mode {
            Mode::Enforce => "",
            Mode::Observe => "; it observes: nothing is refused before mode = \"enforce\"",
        };
        let backends = match document.backends.len() {
            0 => String::new(),
            backends => format!(", backends: {backends}"),
        };
        let summary = format!("{name} is sound: services: {services}{backends}, limits: {limits}{mode}\n");
        output::data(&(summary + &render(&compiled, self.flood, context.output.paint)))
    }
}

/// A number of packets a second with an optional k, M or G.
fn flood(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => match (text.strip_suffix('M'), text.strip_suffix('G')) {
            (Some(number), _) => (number, 1e6),
            (_, Some(number)) => (number, 1e9),
            _ => (text, 1.0),
        },
    };
    let rate = number.parse::<f64>().ok().map(|number| number * scale).filter(|rate| (1.0..=1e12).contains(rate));
    rate.ok_or_else(|| {
        let wrong = if text.starts_with('-') { "a flood cannot be negative; " } else { "" };
        format!("{wrong}write packets a second as in 500000, 500k or 3.5M")
    })
}

fn family(forecast: &Forecast) -> &'static str {
    match forecast.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn report(compiled: &Compiled, warnings: Vec<String>, flood: Option<f64>) -> Report {
    let (forecasts, sharing) = (forecast::forecasts(compiled), Sharing::of(&compiled.tenants));
    let limits = compiled.limits.iter().map(|(_, record)| {
        let name = name_str(&record.name).to_owned();
        let regions = forecasts.iter().filter(|forecast| forecast.limit == name).map(|forecast| {
            let region = record.region(forecast.family);
            RegionLoad {
                family: family(forecast).to_owned(),
                prefix: region.prefix,
                aggregate: region.aggregate,
                slots: u64::from(region.sets) * WAYS as u64,
                busy: 0,
                aggregates_busy: 0,
                occupancy: 0.0,
                compartments: region.tenants_compartments(),
                sharing_tenants: sharing.tenants(record, region).len() as u64,
                fullest: None,
                forecast: Some(wire::Forecast::of(forecast, 1.0)),
            }
        });
        LimitForecast { regions: regions.collect(), name }
    });
    let flooded = |packets_per_second| Flood {
        packets_per_second,
        regions: parts(compiled)
            .into_iter()
            .map(|(sources, forecast)| {
                let Load { occupancy, overflow } = forecast.at(packets_per_second);
                Flooded { family: family(&forecast), limit: forecast.limit, sources, occupancy, overflow }
            })
            .collect(),
    };
    Report { check: CheckReport { warnings, limits: limits.collect() }, flood: flood.map(flooded) }
}

/// One line for each limit, family and part: its room, and the flood that fills it.
fn render(compiled: &Compiled, flood: Option<f64>, paint: Paint) -> String {
    let parts = parts(compiled);
    if parts.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        "LIMIT",
        "FAMILY",
        "SOURCES",
        ">OPEN PLACES",
        ">ONE PACKET KEEPS ONE FOR",
        ">FLOOD THAT FILLS THEM",
        ">BUSY",
        ">WITHOUT A PLACE",
    ]);
    for (sources, forecast) in &parts {
        let load = flood.map(|rate| forecast.at(rate));
        let tone = |overflow| if overflow > forecast::FULL { Tone::Fault } else { Tone::Good };
        table.row([
            forecast.limit.as_str().into(),
            family(forecast).into(),
            sources.text().into(),
            count(u64::from(forecast.sets) * OPEN_WAYS as u64).into(),
            span(std::time::Duration::from_secs_f64(forecast.busy_seconds)).into(),
            per_second(forecast.full_at).into(),
            load.map(|load| percent(load.occupancy)).unwrap_or_default().into(),
            load.map_or("".into(), |load| Cell::new(percent(load.overflow), tone(load.overflow))),
        ]);
    }
    let mut text = format!("\n{}", table.render(paint));
    text += "\nFilled: 1 in 100 packets from ever new sources finds no place and meets the overflow rule. One place more for \
             every three is kept for proven sources.\n";
    if let Some(rate) = flood {
        _ = writeln!(text, "Busy and without a place: as foretold for a flood of {}.", per_second(rate));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: &str = "[[limit]]\nname = \"web\"\nunit = \"connections\"\nrate = \"50/min\"\n";

    fn compiled(text: &str) -> Compiled {
        let layout = Layout { sets: 1 << 20, ..Layout::default() };
        policy::compile(&policy::parse(text).unwrap(), 1, &layout).unwrap()
    }

    #[test]
    fn a_flood_is_read_as_people_write_it() {
        assert_eq!(flood("3.5M"), Ok(3.5e6));
        assert_eq!(flood("500k"), Ok(5e5));
        assert_eq!(flood("1000"), Ok(1e3));
        for wrong in ["", "M", "-1", "3.5m", "nan", "0"] {
            assert!(flood(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_forecast_names_the_flood_that_fills_each_region() {
        let expected = "
LIMIT  FAMILY  SOURCES  OPEN PLACES  ONE PACKET KEEPS ONE FOR  FLOOD THAT FILLS THEM
web    ipv4    any             197k                     1.2 s                24.9k/s
web    ipv6    any             197k                     1.2 s                24.9k/s

Filled: 1 in 100 packets from ever new sources finds no place and meets the overflow rule. One place more for every three is kept for proven sources.
";
        assert_eq!(render(&compiled(LIMIT), None, Paint::PLAIN), expected);
        let flooded = render(&compiled(LIMIT), Some(3.5e6), Paint::PLAIN);
        assert!(flooded.contains("a flood of 3.5M/s") && flooded.contains("WITHOUT A PLACE"), "{flooded}");
    }

    #[test]
    fn where_tenants_divide_a_table_the_part_of_one_is_foretold_too() {
        let mut text = String::new();
        for tenant in 1..=5 {
            _ = writeln!(text, "[[tenant]]\nname = \"t{tenant}\"\nsources = [\"10.0.0.{tenant}\"]");
        }
        let compiled = compiled(&(text + LIMIT));
        let text = render(&compiled, Some(3.5e6), Paint::PLAIN);
        let lines: Vec<_> = text.lines().filter(|line| line.contains("ipv4")).collect();
        let [whole, part] = lines[..] else { panic!("{text}") };
        // Half of the table, and an eighth of the other half.
        assert!(whole.contains("of no tenant  ") && whole.contains("98304"), "{text}");
        assert!(part.contains("of a tenant  ") && part.contains("12288"), "{text}");
        let json = serde_json::to_value(report(&compiled, Vec::new(), Some(1000.0))).unwrap();
        assert_eq!(json["flood"]["regions"][1]["sources"], "of-a-tenant");
    }

    #[test]
    fn the_report_is_the_apis_with_the_flood_beside_it() {
        let json = serde_json::to_value(Envelope::new(report(&compiled(LIMIT), Vec::new(), Some(1000.0)))).unwrap();
        assert_eq!(json["schema_version"], 1);
        assert_eq!(json["limits"][0]["regions"][0]["slots"], 262_144);
        assert_eq!(json["flood"]["regions"][1]["family"], "ipv6");
        assert_eq!(json["flood"]["regions"][1]["sources"], "any");
        assert!(serde_json::from_value::<Envelope<CheckReport>>(json).is_ok());
    }
}
