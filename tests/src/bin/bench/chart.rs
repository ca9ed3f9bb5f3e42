//! Charts as SVG, each by itself: no fonts and no scripts from elsewhere, readable on a light page and on a dark one.

use std::fmt::Write as _;

const WIDTH: f64 = 820.0;
/// Where the legend's lines begin, and how far they are apart.
const LEGEND: f64 = 46.0;
const LINE: f64 = 18.0;
/// Colours that people tell apart however they see them (Okabe and Ito, 2008), the first of them for the baseline.
const STYLE: &str = "<style>\
    text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}\
    .page{fill:#fff}.grid{stroke:#d0d7de}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.grid{stroke:#3d444d}}\
    .small{font-size:11px}.end{text-anchor:end}.middle{text-anchor:middle}.line{fill:none;stroke-width:2;stroke-linejoin:round}\
    .s0{fill:#8c959f;stroke:#8c959f}.s1{fill:#0072b2;stroke:#0072b2}.s2{fill:#d55e00;stroke:#d55e00}\
    .s3{fill:#009e73;stroke:#009e73}.s4{fill:#cc79a7;stroke:#cc79a7}.s5{fill:#e69f00;stroke:#e69f00}\
    </style>";

/// What an axis shows, with its unit.
pub(super) type Axis = &'static str;

/// Bars that lie beneath each other: a name, and a value of each series, of which one may be missing.
pub(super) fn bars(title: &str, axis: Axis, series: &[&str], rows: &[(&str, Vec<Option<f64>>)]) -> String {
    const THICK: f64 = 11.0;
    const GAP: f64 = 8.0;
    let longest = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let left = 24.0 + 6.6 * longest as f64;
    let top = LEGEND + if series.len() > 1 { LINE } else { 0.0 };
    let group = THICK * series.len() as f64 + GAP;
    let bottom = top + group * rows.len() as f64;
    let most = rows.iter().flat_map(|(_, values)| values).flatten().copied().fold(0.0, f64::max);
    // The last tenth is for the number behind the longest bar.
    let place = |value: f64| left + value / most.max(1e-9) * (WIDTH - left - 70.0);
    let mut svg = open(title, bottom + 48.0, series);
    for tick in ticks(most) {
        let x = place(tick);
        line(&mut svg, [x, top], [x, bottom]);
        text(&mut svg, [x, bottom + LINE], "middle", &number(tick));
    }
    text(&mut svg, [left, bottom + 38.0], "", axis);
    for ((name, values), y) in rows.iter().zip((0..).map(|row| top + GAP / 2.0 + group * f64::from(row))) {
        text(&mut svg, [left - 8.0, y + THICK * values.len() as f64 / 2.0 + 4.0], "end", name);
        for (index, value) in values.iter().enumerate() {
            let y = y + THICK * index as f64;
            let Some(value) = *value else { continue };
            let width = (place(value) - left).max(1.0);
            let _ = write!(
                svg,
                r#"<rect class="s{index}" x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}"/>"#,
                THICK - 2.0
            );
            text(&mut svg, [left + width + 6.0, y + THICK - 2.0], "", &number(value));
        }
    }
    svg + "</svg>\n"
}

/// Lines over time or another number: their names and points, by what grows to the right.
pub(super) fn lines(title: &str, axes: [Axis; 2], lines: &[(&str, Vec<[f64; 2]>)]) -> String {
    timeline(title, axes, &[], lines)
}

/// The same, where something begins at marks: where, and what.
pub(super) fn timeline(title: &str, axes: [Axis; 2], marks: &[(f64, &str)], lines: &[(&str, Vec<[f64; 2]>)]) -> String {
    const LEFT: f64 = 64.0;
    const TALL: f64 = 340.0;
    let names: Vec<_> = lines.iter().map(|(name, _)| *name).collect();
    let top = LEGEND + if marks.is_empty() { LINE } else { 2.0 * LINE };
    let bottom = top + TALL;
    let most = |of: usize| lines.iter().flat_map(|(_, points)| points).map(|point| point[of]).fold(0.0, f64::max);
    let (wide, high) = (most(0).max(1e-9), most(1).max(1e-9) * 1.04);
    let place = |[x, y]: [f64; 2]| [LEFT + x / wide * (WIDTH - LEFT - 24.0), bottom - y / high * TALL];
    let mut svg = open(title, bottom + 48.0, &names);
    for tick in ticks(high) {
        let [x, y] = place([0.0, tick]);
        line(&mut svg, [x, y], [WIDTH - 24.0, y]);
        text(&mut svg, [x - 8.0, y + 4.0], "end", &number(tick));
    }
    for tick in ticks(wide) {
        let [x, _] = place([tick, 0.0]);
        line(&mut svg, [x, bottom], [x, bottom + 4.0]);
        text(&mut svg, [x, bottom + LINE], "middle", &number(tick));
    }
    for (at, name) in marks {
        let [x, _] = place([*at, 0.0]);
        line(&mut svg, [x, top - 12.0], [x, bottom]);
        text(&mut svg, [x + 4.0, top - 4.0], "small", name);
    }
    text(&mut svg, [LEFT, bottom + 38.0], "", &format!("across: {}; up: {}", axes[0], axes[1]));
    for (index, (_, points)) in lines.iter().enumerate() {
        let _ = write!(svg, r#"<polyline class="line s{index}" points=""#);
        let mut last = [f64::NEG_INFINITY; 2];
        for point in points.iter().map(|point| place(*point)) {
            // What moves by less than a point is not to be seen.
            if (point[0] - last[0]).abs().max((point[1] - last[1]).abs()) >= 1.0 {
                let _ = write!(svg, "{:.1},{:.1} ", point[0], point[1]);
                last = point;
            }
        }
        svg += r#"" style="fill:none"/>"#;
    }
    svg + "</svg>\n"
}

/// The page, its title and its legend.
fn open(title: &str, height: f64, series: &[&str]) -> String {
    let title = escaped(title);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" role="img"><title>{title}</title>{STYLE}<rect class="page" width="100%" height="100%" rx="6"/>"#
    );
    let _ = write!(svg, r#"<text class="title" x="16" y="26">{title}</text>"#);
    let mut x = 16.0;
    if series.len() > 1 {
        for (index, name) in series.iter().enumerate() {
            let _ =
                write!(svg, r#"<rect class="s{index}" x="{x:.1}" y="{:.1}" width="10" height="10"/>"#, LEGEND - 5.0);
            text(&mut svg, [x + 15.0, LEGEND + 4.0], "", name);
            x += 30.0 + 6.9 * name.chars().count() as f64;
        }
    }
    svg
}

fn line(svg: &mut String, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
    let _ = write!(svg, r#"<line class="grid" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
}

fn text(svg: &mut String, [x, y]: [f64; 2], class: &str, text: &str) {
    let _ = write!(svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Round numbers from 0 up to the largest: four to eight of them.
fn ticks(most: f64) -> impl Iterator<Item = f64> {
    let rough = (most / 8.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|of| of * power).find(|step| *step >= rough).unwrap_or(rough);
    (0..).map(move |tick| step * f64::from(tick)).take_while(move |tick| *tick <= most)
}

/// As many digits as say something.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
