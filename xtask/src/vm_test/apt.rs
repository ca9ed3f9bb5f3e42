//! Debian's packages of all releases that are still served, read through apt state of our own.
//!
//! The machine's apt is asked once, for the mirror that it is set up with; its lists, its cache and its packages stay
//! as they are. Nothing here needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Which releases are read: of the archive, and of its security updates. A suite that the mirror no longer has costs a
/// warning, and its kernels.
const SUITES: [&str; 4] = ["bullseye", "bookworm", "trixie", "trixie-backports"];
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
/// What Debian signs its lists with, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Apt with a folder of its own.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Sets it up in a folder, for the mirror that this machine uses.
    pub(super) fn new(folder: PathBuf) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("make {}", folder.display()))?;
        }
        let mut ask = Command::new("apt-get");
        ask.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]);
        let sources = sources(&process::output(&mut ask)?)?;
        fs::write(folder.join("sources.list"), sources).context("write the list of package sources")?;
        Ok(Self { folder })
    }

    /// Reads the lists of packages anew.
    pub(super) fn update(&self) -> Result<()> {
        process::run(self.command("apt-get").args(["--quiet=2", "update"]))
    }

    /// The names of the packages of kernels for virtual machines.
    pub(super) fn kernel_packages(&self) -> Result<Vec<String>> {
        let pattern = "^linux-(image|binary|modules)-.*-cloud-amd64$";
        let found = process::output(self.command("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(found.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// The names of the files that packages come in, which hold their versions.
    pub(super) fn file_names(&self, packages: &[String]) -> Result<Vec<String>> {
        let said = process::output(self.command("apt-get").args(["download", "--print-uris"]).args(packages))?;
        let names: Vec<String> = said.lines().filter_map(file_name).map(str::to_owned).collect();
        if names.len() != packages.len() {
            bail!("apt names {} files for {}", names.len(), packages.join(" "));
        }
        Ok(names)
    }

    /// Downloads packages into a folder.
    pub(super) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        process::run(download.args(["--quiet=2", "download"]).args(packages).current_dir(into))
            .context("download the packages: is there a network?")
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.folder.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::State::Lists={folder}/lists"),
            format!("Dir::Etc::SourceList={folder}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::Cache={folder}/cache"),
            // Images for containers switch these off, which costs seconds a call.
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
            "APT::Default-Release=".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// The lines of a `sources.list`, from what apt says of the machine's own: `URI RELEASE` a line.
fn sources(configured: &str) -> Result<String> {
    let pairs: Vec<(&str, &str)> = configured.lines().filter_map(|line| line.split_once(' ')).collect();
    let with = |wanted: &dyn Fn(&str) -> bool| pairs.iter().find(|(_, release)| wanted(release)).map(|(uri, _)| *uri);
    let archive = with(&|release| !release.contains('-'));
    let security = with(&|release| release.ends_with("-security"));
    let (Some(archive), Some(security)) = (archive, security) else {
        bail!("apt is not set up with a mirror of Debian and its security updates: kernels come from there");
    };
    let line = |uri: &str, suite: &str| format!("deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n");
    let archive = SUITES.iter().map(|suite| line(archive, suite));
    Ok(archive.chain(SECURITY_SUITES.iter().map(|suite| line(security, suite))).collect())
}

/// Of a line `'URI' FILE SIZE HASH`, as `--print-uris` prints it.
fn file_name(line: &str) -> Option<&str> {
    line.starts_with('\'').then(|| line.split_whitespace().nth(1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_is_asked_of_the_mirror_that_the_machine_uses() {
        let configured = "http://mirror.example/debian/ bookworm\nhttp://mirror.example/debian/ bookworm-updates\n\
                          http://mirror.example/security/ bookworm-security\n";
        let sources = sources(configured).unwrap();
        let has = |end: &str| sources.lines().any(|line| line.ends_with(end));
        assert!(has("] http://mirror.example/debian/ trixie-backports main"), "{sources}");
        assert!(has("] http://mirror.example/security/ bullseye-security main"), "{sources}");
        assert_eq!(sources.lines().count(), SUITES.len() + SECURITY_SUITES.len());
    }

    #[test]
    fn a_machine_without_a_mirror_of_debian_is_told_so() {
        assert!(sources("").unwrap_err().to_string().contains("mirror of Debian"));
    }

    #[test]
    fn the_file_of_a_package_is_read_from_what_apt_would_download() {
        let line =
            "'http://mirror.example/l.deb' linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb 26713492 SHA256:9f";
        assert_eq!(file_name(line), Some("linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb"));
        assert_eq!(file_name("Reading package lists..."), None);
    }
}
