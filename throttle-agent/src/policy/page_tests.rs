//! The page on policy has every field, no other, each with its default; and the examples of the documentation are right.

use super::{
    Answers, Backend, Document, Events, Health, Http, Limit, Penalty, Service, Sources, Tenant, Word as _, parse,
    units::{Rate, Span},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fs, path::Path};
use throttle_common::{
    connections,
    records::{CONNECTION_LIMITS, MAX_CONNECTIONS},
    words::{Reason, Unit},
};
use utoipa::PartialSchema;

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
}

/// Of every section, the default of every field that its table has.
fn tables(page: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.trim_matches('`').clone_into(&mut section);
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["", field, _, _, default, ""] = cells[..]
            && let Some(field) = field.strip_prefix('`').and_then(|field| field.strip_suffix('`'))
        {
            let twice = sections.entry(section.clone()).or_default().insert(field.to_owned(), default.to_owned());
            assert_eq!(twice, None, "`{field}` stands twice in {section}");
        }
    }
    sections
}

/// What the code says of the fields of a table: `required`, the default as the page writes it, or nothing.
fn expected<T: PartialSchema>(default: &Value) -> BTreeMap<String, String> {
    let schema = serde_json::to_value(T::schema()).unwrap();
    let none = Map::new();
    let required = |field: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|it| it == field));
    let fields = schema["properties"].as_object().unwrap_or(&none).keys();
    fields
        .map(|field| {
            let text = match &default[field] {
                _ if required(field) => "required".to_owned(),
                Value::String(text) => format!("`{text}`"),
                Value::Number(number) => format!("`{number}`"),
                Value::Object(lengths) if lengths.contains_key("ipv4") => {
                    format!("`{{ ipv4 = {}, ipv6 = {} }}`", lengths["ipv4"], lengths["ipv6"])
                }
                _ => String::new(),
            };
            (field.clone(), text)
        })
        .collect()
}

#[test]
fn the_page_on_policy_has_every_field_with_its_default_and_no_other() {
    let limit = Limit { rate: None, ..Limit::new("", Unit::Packets, Rate::per_second(1)) };
    let backend = Backend::new("", "", "10.0.0.5:80".parse().unwrap());
    let penalty = Penalty::new(1, Span::of_seconds(1));
    let shapes = Reason::all().into_iter();
    let code: [(&str, BTreeMap<String, String>); 12] = [
        ("The document", expected::<Document>(&serde_json::to_value(Document::default()).unwrap())),
        ("[[service]]", expected::<Service>(&Value::Null)),
        ("[service.http]", expected::<Http>(&serde_json::to_value(Http::default()).unwrap())),
        ("[service.health]", expected::<Health>(&serde_json::to_value(Health::default()).unwrap())),
        ("[[backend]]", expected::<Backend>(&serde_json::to_value(backend).unwrap())),
        ("[[tenant]]", expected::<Tenant>(&Value::Null)),
        ("[[limit]]", expected::<Limit>(&serde_json::to_value(limit).unwrap())),
        ("[limit.penalty]", expected::<Penalty>(&serde_json::to_value(penalty).unwrap())),
        ("[sources]", expected::<Sources>(&Value::Null)),
        ("[shapes]", shapes.map(|it| (it.name().to_owned(), format!("`{}`", it.default_fate().name()))).collect()),
        ("[answers]", expected::<Answers>(&serde_json::to_value(Answers::default()).unwrap())),
        ("[events]", expected::<Events>(&serde_json::to_value(Events::default()).unwrap())),
    ];
    let tables = tables(&page("docs/policy.md"));
    for (section, fields) in code {
        let told = tables.get(section).unwrap_or_else(|| panic!("the page has no section {section}"));
        let names = |fields: &BTreeMap<String, String>| fields.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(told), names(&fields), "the fields of {section}: the page's, and the code's");
        for (field, default) in fields {
            let told = &told[&field];
            let agrees = if default.is_empty() { !told.is_empty() && told != "required" } else { *told == default };
            assert!(agrees, "{section} {field}: the page says the default is {told}, the code {default}");
        }
    }
}

#[test]
fn the_page_on_policy_says_how_many_connections_are_counted_at_most() {
    let bounds = |page: &str| page.lines().find(|line| line.starts_with("| `concurrent` |")).map(str::to_owned);
    let told = bounds(&page("docs/policy.md")).unwrap();
    for bound in [MAX_CONNECTIONS as usize, connections::MOST as usize, CONNECTION_LIMITS] {
        assert!(told.contains(&format!(" {bound} ")) || told.contains(&format!(" {bound};")), "{bound}: {told}");
    }
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    for name in ["README.md", "docs/policy.md"] {
        let page = page(name);
        let examples: Vec<_> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(!examples.is_empty(), "{name} shows no policy");
        for example in examples {
            parse(example).unwrap_or_else(|faults| panic!("{}", faults.in_file(name)));
        }
    }
}
