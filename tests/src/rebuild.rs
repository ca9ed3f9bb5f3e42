//! Another build of the same kernel programs, without the minutes that building takes: a copy of the binary in which each
//! `mov64` of a small constant is the `mov32` that does the same.

use anyhow::{Context, Result, ensure};
use std::{fs, ops::Range, path::Path};

/// How an ELF file for BPF begins: 64 bits, little-endian.
const ELF: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
/// `e_type` and `e_machine` of such a file: relocatable, EM_BPF.
const BPF_OBJECT: [u8; 4] = [1, 0, 247, 0];
/// `sh_flags`: the section holds instructions.
const EXECUTABLE: u64 = 4;

/// Opcodes: `rX = imm` in 64 and in 32 bits, and the one instruction that is two long.
const MOV64: u8 = 0xb7;
const MOV32: u8 = 0xb4;
const LOAD64: u8 = 0x18;

/// Copies the binary, with its kernel programs written otherwise.
pub fn rebuild(binary: &Path, copy: &Path) -> Result<()> {
    let mut bytes = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
    let begins = |&at: &usize| bytes[at..].starts_with(&ELF) && bytes[at + 16..].starts_with(&BPF_OBJECT);
    let object = (0..bytes.len() - 64).step_by(8).find(begins).context("no BPF object in the binary")?;
    let mut changed = 0;
    for section in instructions(&bytes, object)? {
        let mut at = section.start;
        while at < section.end {
            // A constant of 31 bits is extended in the same way by both.
            if bytes[at] == MOV64 && bytes[at + 7] < 0x80 {
                bytes[at] = MOV32;
                changed += 1;
            }
            at += if bytes[at] == LOAD64 { 16 } else { 8 };
        }
    }
    ensure!(changed > 0, "the kernel programs move no constants");
    fs::write(copy, bytes).with_context(|| format!("write {}", copy.display()))?;
    fs::set_permissions(copy, fs::metadata(binary)?.permissions()).context("make the copy executable")
}

/// Where the object's instructions lie.
fn instructions(bytes: &[u8], object: usize) -> Result<Vec<Range<usize>>> {
    let word = |at: usize, length: usize| -> Result<u64> {
        let field = bytes.get(object + at..object + at + length).context("the object ends early")?;
        Ok(field.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
    };
    let (table, size, count) = (word(0x28, 8)? as usize, word(0x3a, 2)? as usize, word(0x3c, 2)? as usize);
    let mut sections = Vec::new();
    for header in (0..count).map(|section| table + section * size) {
        if word(header + 0x08, 8)? & EXECUTABLE != 0 {
            let start = object + word(header + 0x18, 8)? as usize;
            sections.push(start..start + word(header + 0x20, 8)? as usize);
        }
    }
    Ok(sections)
}
