//! The files of certificates: what is refused, by name and with its remedy, and when they are read anew.

use std::{fs, io, path::PathBuf};

use throttle_agent::tls::{FileFault, Identity, client, server};

use crate::authority::{Authority, replace};

/// How an identity is refused.
fn refusal(identity: &Identity) -> FileFault {
    server(identity).expect_err("these files are wrong")
}

#[test]
fn a_wrong_file_is_named_with_its_remedy() {
    let Some(authority) = Authority::new("throttle.internal web-1") else { return };
    let well = authority.identity();
    server(&well).unwrap();
    let is = |identity: &Identity, file: &PathBuf, reason: &str, remedy: &str| {
        let said = refusal(identity);
        assert_eq!(&said.file, file, "{said}");
        assert!(said.fault.reason.contains(reason) && said.fault.remedy.contains(remedy), "{said}");
    };

    let gone = authority.file("gone");
    is(&Identity { key: gone.clone(), ..well.clone() }, &gone, "cannot be read", "name a file that is there");
    let letter = authority.file("letter");
    fs::write(&letter, "Dear operator").unwrap();
    is(&Identity { certificate: letter.clone(), ..well.clone() }, &letter, "holds no certificate", "PEM");
    is(&Identity { key: letter.clone(), ..well.clone() }, &letter, "holds no private key", "openssl pkey");
    is(&Identity { authority: letter.clone(), ..well.clone() }, &letter, "holds no certificate", "PEM");
    let other = authority.file("web-1.key");
    is(&Identity { key: other.clone(), ..well.clone() }, &other, "is not the key of", "made together");
    let cut = authority.file("cut");
    let text = fs::read_to_string(&well.certificate).unwrap();
    fs::write(&cut, &text[..text.len() / 2]).unwrap();
    is(&Identity { certificate: cut.clone(), ..well.clone() }, &cut, "is damaged", "PEM");
    is(&Identity { authority: cut.clone(), ..well.clone() }, &cut, "is damaged", "PEM");
    let endless = PathBuf::from("/dev/zero");
    is(&Identity { authority: endless.clone(), ..well.clone() }, &endless, "longer than 4 MiB", "PEM");
    let refused = client(Some(&letter)).unwrap_err().downcast::<FileFault>().unwrap();
    assert_eq!(refused.file, letter);
}

#[test]
fn files_that_change_are_read_anew_and_wrong_ones_change_nothing() {
    let Some(authority) = Authority::new("throttle.internal") else { return };
    let Some(other) = Authority::new("throttle.internal") else { return };
    let identity = authority.identity();
    let held = server(&identity).unwrap();
    let mut latest = held.subscribe();
    assert!(!held.look().unwrap(), "nothing has changed");

    fs::copy(other.identity().key, &identity.key).unwrap();
    let fault = held.look().unwrap_err();
    assert_eq!(fault.file, identity.key, "{fault}");
    assert!(!latest.has_changed().unwrap());
    fs::remove_file(&identity.key).unwrap();
    assert!(held.look().unwrap_err().fault.reason.contains(&io::Error::from_raw_os_error(2).to_string()));
    assert!(!latest.has_changed().unwrap());

    replace(&identity, &other.identity());
    assert!(held.look().unwrap());
    assert!(latest.has_changed().unwrap());
    latest.mark_unchanged();
    assert!(!held.look().unwrap() && !latest.has_changed().unwrap());
}
