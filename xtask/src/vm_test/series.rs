//! Which package is the newest kernel of a series.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// How Debian calls its kernels for virtual machines on x86-64.
const FLAVOUR: &str = "-cloud-amd64";

/// The first numbers of a kernel's version: `6.12`, or `7` for the newest of all that begin so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series(Vec<u32>);

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        numbers
            .map(Self)
            .map_err(|_| format!("`{text}` is no series of kernels; say `6.12`, or `7` for the newest 7.x"))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        out.write_str(&numbers.join("."))
    }
}

impl Series {
    /// Whether all its kernels are older than a version.
    pub(super) fn is_before(&self, version: [u32; 2]) -> bool {
        self.0.as_slice() < &version[..self.0.len().min(2)]
    }
}

/// A kernel by what `uname -r` says in it, and the packages that make it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) release: String,
    pub(super) packages: Vec<String>,
}

/// The newest kernel of a series whose packages are all there.
///
/// Until 6.18 an image and its modules are one package; later ones come in two, and `linux-image` only names them.
pub(super) fn newest(series: &Series, packages: &[String]) -> Option<Choice> {
    let all: BTreeSet<&str> = packages.iter().map(String::as_str).collect();
    let choice = |release: &str| {
        let named = |kind: &str| format!("linux-{kind}-{release}");
        let split = all.contains(&*named("binary"));
        let parts = if split { vec![named("binary"), named("modules")] } else { vec![named("image")] };
        let complete = parts.iter().all(|part| all.contains(&**part));
        complete.then(|| Choice { release: release.to_owned(), packages: parts })
    };
    let mut found: Vec<(Vec<u32>, Choice)> = all
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter_map(|release| Some((version(release)?, choice(release)?)))
        .filter(|(version, _)| version.starts_with(&series.0))
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.pop().map(|(_, choice)| choice)
}

/// The numbers of a released kernel's name, most significant first: `6.12.90+deb13.1-cloud-amd64` is 6, 12, 90, 13, 1.
fn version(release: &str) -> Option<Vec<u32>> {
    let numbers = release.strip_suffix(FLAVOUR)?;
    if numbers.contains("rc") {
        return None;
    }
    let numbers = numbers.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let numbers: Vec<u32> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
    // Fewer is a package that depends on whichever is the newest.
    Some(numbers).filter(|numbers| numbers.len() > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Debian has at one time, shortened.
    const PACKAGES: [&str; 17] = [
        "linux-image-5.10.0-46-cloud-amd64",
        "linux-image-6.1-cloud-amd64",
        "linux-image-6.1.0-0.deb11.52-cloud-amd64",
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.118+deb13-cloud-amd64",
        "linux-image-6.12.118+deb13.1-cloud-amd64",
        "linux-image-6.12.118+deb13.1-cloud-arm64",
        "linux-binary-7.0.13+deb13-cloud-amd64",
        "linux-image-7.0.13+deb13-cloud-amd64",
        "linux-binary-7.2.12+deb13-cloud-amd64",
        "linux-image-7.2.12+deb13-cloud-amd64",
        "linux-modules-7.2.12+deb13-cloud-amd64",
        "linux-image-7.3~rc7-cloud-amd64",
        "linux-image-7.4.1+deb14-amd64",
    ];

    fn chosen(series: &str) -> Option<Choice> {
        newest(&series.parse().unwrap(), &PACKAGES.map(str::to_owned))
    }

    fn release(series: &str) -> Option<String> {
        chosen(series).map(|choice| choice.release)
    }

    #[test]
    fn the_newest_is_that_of_the_highest_numbers() {
        assert_eq!(release("5.10").as_deref(), Some("5.10.0-46-cloud-amd64"));
        assert_eq!(release("6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release("6.12").as_deref(), Some("6.12.118+deb13.1-cloud-amd64"));
        assert_eq!(release("6").as_deref(), Some("6.12.118+deb13.1-cloud-amd64"));
        assert_eq!(release("6.12.117").as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(release("6.6"), None);
    }

    #[test]
    fn a_kernel_in_two_packages_needs_both() {
        let choice = chosen("7").unwrap();
        assert_eq!(choice.release, "7.2.12+deb13-cloud-amd64");
        let parts = ["linux-binary-7.2.12+deb13-cloud-amd64", "linux-modules-7.2.12+deb13-cloud-amd64"];
        assert_eq!(choice.packages, parts);
        assert_eq!(chosen("7.0"), None, "its modules are not there");
    }

    #[test]
    fn a_series_is_numbers() {
        assert!("7.x".parse::<Series>().is_err());
        assert!("".parse::<Series>().is_err());
        assert_eq!("6.12".parse::<Series>().unwrap().to_string(), "6.12");
    }

    #[test]
    fn a_series_is_before_a_version_where_all_its_kernels_are() {
        let before = |series: &str| series.parse::<Series>().unwrap().is_before([6, 1]);
        assert!(before("5.10") && before("6.0") && before("5") && before("5.10.0"));
        assert!(!before("6.1") && !before("6.12") && !before("6") && !before("7") && !before("6.1.0"));
    }
}
