//! Kernels on the disk: an image and its modules, unpacked from their packages once.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::apt::Apt;
use super::series::{Choice, Series, newest};
use crate::process;

/// A kernel that can be booted.
pub(super) struct Kernel {
    release: String,
    /// The version of its package, which changes more often.
    version: String,
    folder: PathBuf,
}

/// The newest kernel of a series, downloaded into a folder of its own under `kernels` unless it is there.
pub(super) fn fetch(series: &Series, apt: &Apt, packages: &[String], kernels: &Path) -> Result<Kernel> {
    let Choice { release, packages } = newest(series, packages)
        .with_context(|| format!("the mirror has no complete kernel of the series {series}"))?;
    let files = apt.file_names(&packages)?;
    let version = files.first().and_then(|file| file.split('_').nth(1)).context("a package's file has no version")?;
    let folder = kernels.join(format!("{release}_{version}"));
    let kernel = Kernel { release, version: version.to_owned(), folder };
    if !kernel.folder.is_dir() {
        process::step(&format!("fetch Linux {} (about 30 MB)", kernel.name()), || kernel.unpack(apt, &packages))?;
    }
    Ok(kernel)
}

impl Kernel {
    /// What tells it from every other.
    pub(super) fn name(&self) -> String {
        format!("{} ({})", self.release, self.version)
    }

    /// What `uname -r` says in it.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// The same without spaces, for a file.
    pub(super) fn file_name(&self) -> &OsStr {
        self.folder.file_name().expect("a folder of its own")
    }

    fn unpack(&self, apt: &Apt, packages: &[String]) -> Result<()> {
        let draft = self.folder.with_extension("draft");
        match fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", draft.display()));
            }
            _ => fs::create_dir_all(&draft).with_context(|| format!("make {}", draft.display()))?,
        }
        apt.download(packages, &draft)?;
        for entry in fs::read_dir(&draft)? {
            let package = entry?.path();
            process::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&draft))?;
            fs::remove_file(&package)?;
        }
        fs::rename(&draft, &self.folder).context("give the kernel's folder its name")
    }

    /// The image, from where either layout of the packages has it.
    pub(super) fn image(&self) -> Result<PathBuf> {
        let places = [format!("boot/vmlinuz-{}", self.release), format!("usr/lib/modules/{}/vmlinuz", self.release)];
        let mut places = places.iter().map(|place| self.folder.join(place));
        places.find(|place| place.is_file()).with_context(|| format!("no image in {}", self.folder.display()))
    }

    /// Modules and those that they need, each after what it needs, ready for `insmod`; what is no module is taken to be
    /// built in, and missed where it is not.
    pub(super) fn modules(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut files = Vec::new();
        for place in ["lib/modules", "usr/lib/modules"] {
            collect(&self.folder.join(place).join(&self.release).join("kernel"), &mut files)?;
        }
        let mut modules = Vec::new();
        for name in wanted {
            add(name, &files, &mut modules)?;
        }
        Ok(modules)
    }
}

/// A module as the kernel takes it.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// All files of a folder and its folders; none where there is no such folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn add(name: &str, files: &[PathBuf], modules: &mut Vec<Module>) -> Result<()> {
    let Some(file) = files.iter().find(|file| module_name(file).is_some_and(|found| found == name)) else {
        return Ok(());
    };
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let bytes = if file.extension() == Some(OsStr::new("xz")) { unxz(file)? } else { fs::read(file)? };
    for needed in dependencies(&bytes) {
        add(&needed, files, modules)?;
    }
    modules.push(Module { name: name.to_owned(), bytes });
    Ok(())
}

/// What the kernel calls the module of a file: `veth` for `veth.ko.xz`, `tcp_diag` also for `tcp-diag.ko`.
fn module_name(file: &Path) -> Option<String> {
    let (name, _) = file.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn unxz(file: &Path) -> Result<Vec<u8>> {
    let mut xz = Command::new("xz");
    let output = xz.args(["--decompress", "--stdout"]).arg(file).stdin(Stdio::null()).output().context("run `xz`")?;
    if !output.status.success() {
        bail!("`{}` failed: {}", process::words(&xz), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// The modules that one needs: it says so itself, as `depends=ONE,OTHER` among strings that end with a zero.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|bytes| bytes == FIELD) else { return Vec::new() };
    let value = module[at + FIELD.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(
            dependencies(b"\x7fELF\0license=GPL\0depends=inet_diag,nf-tables\0name=x\0"),
            ["inet_diag", "nf_tables"]
        );
        assert!(dependencies(b"license=GPL\0depends=\0name=veth\0").is_empty());
        assert!(dependencies(b"\x7fELF").is_empty());
    }

    #[test]
    fn a_module_comes_after_what_it_needs_and_once() {
        let folder = std::env::temp_dir().join(format!("throttle-modules-{}", std::process::id()));
        let release = "6.1.0-1-cloud-amd64";
        let inside = folder.join("lib/modules").join(release).join("kernel/net");
        fs::create_dir_all(&inside).unwrap();
        for (file, needs) in [("a-one.ko", "b,c"), ("b.ko", "c"), ("c.ko", "")] {
            fs::write(inside.join(file), format!("\0depends={needs}\0")).unwrap();
        }
        let kernel = Kernel { release: release.to_owned(), version: "1".to_owned(), folder: folder.clone() };
        let modules = kernel.modules(&["a_one", "c", "built_in"]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["c", "b", "a_one"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
