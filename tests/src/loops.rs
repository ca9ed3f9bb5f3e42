//! Whether Linux 6.1 takes the loops of a kernel object: the walk over a function's instructions with which its verifier
//! begins (`check_cfg` of kernel/bpf/verifier.c) lets only jumps lead back, and refuses a loop whose last instruction falls
//! into its first one. Later kernels take both, and which of the two a loop becomes is the compiler's choice.

use anyhow::{Context, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

// include/uapi/linux/bpf.h
const CLASS: u8 = 0x07;
const JUMP: u8 = 0x05;
const JUMP_32: u8 = 0x06;
const ALWAYS: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const INSTRUCTION: usize = 8;

/// The loops that it refuses: each a function's name, and the instruction in it that falls back.
pub fn refused(elf: &[u8]) -> Result<Vec<(String, usize)>> {
    let object = object::File::parse(elf).context("read the object")?;
    let mut found = Vec::new();
    for symbol in object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let Some(index) = symbol.section_index() else { continue };
        let section = object.section_by_index(index)?;
        let code = section.data_range(symbol.address(), symbol.size())?.context("a function outside its section")?;
        let instructions: Vec<&[u8]> = code.chunks_exact(INSTRUCTION).collect();
        found.extend(walk(&instructions).into_iter().map(|at| (symbol.name().unwrap_or_default().to_owned(), at)));
    }
    Ok(found)
}

/// Where an instruction leads, the first of them first, each with whether that is by a jump.
fn next(instructions: &[&[u8]], at: usize) -> Vec<(usize, bool)> {
    let &[operation, _, low, high, ..] = instructions[at] else { return Vec::new() };
    let over = isize::from(i16::from_le_bytes([low, high])) + 1;
    // Before the first instruction is nowhere.
    let target = || at.checked_add_signed(over).unwrap_or(usize::MAX);
    match operation {
        EXIT => Vec::new(),
        ALWAYS => vec![(target(), true)],
        CALL => vec![(at + 1, false)],
        _ if matches!(operation & CLASS, JUMP | JUMP_32) => vec![(at + 1, true), (target(), true)],
        _ => vec![(at + 1, false)],
    }
}

fn walk(instructions: &[&[u8]]) -> Vec<usize> {
    let (mut begun, mut done) = (vec![false; instructions.len()], vec![false; instructions.len()]);
    // Each with how many of its ways have been followed.
    let (mut path, mut found) = (vec![(0, 0)], Vec::new());
    while let Some((at, followed)) = path.last_mut() {
        begun[*at] = true;
        let Some(&(to, jumps)) = next(instructions, *at).get(*followed) else {
            done[*at] = true;
            path.pop();
            continue;
        };
        *followed += 1;
        if to >= instructions.len() || done[to] {
            continue;
        }
        if !begun[to] {
            path.push((to, 0));
        } else if !jumps {
            found.push(*at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVE: u8 = 0xb7;
    const IF_EQUAL: u8 = 0x15;

    #[test]
    fn a_loop_may_jump_back_and_not_fall_back() {
        let instruction = |operation: u8, over: i16| {
            let [low, high] = over.to_le_bytes();
            [operation, 0, low, high, 0, 0, 0, 0]
        };
        let walked = |code: &[[u8; 8]]| walk(&code.iter().map(|it| &it[..]).collect::<Vec<_>>());
        // 1 -> 2 -> 1, by a jump.
        let jumps =
            [(MOVE, 0), (MOVE, 0), (IF_EQUAL, -2), (EXIT, 0)].map(|(operation, over)| instruction(operation, over));
        assert!(walked(&jumps).is_empty());
        // The loop is entered at 2, and 1 falls into that.
        let falls =
            [(ALWAYS, 1), (MOVE, 0), (IF_EQUAL, -2), (EXIT, 0)].map(|(operation, over)| instruction(operation, over));
        assert_eq!(walked(&falls), [1]);
        let calls =
            [(ALWAYS, 1), (CALL, 0), (IF_EQUAL, -2), (EXIT, 0)].map(|(operation, over)| instruction(operation, over));
        assert_eq!(walked(&calls), [1]);
    }
}
