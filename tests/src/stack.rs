//! How much stack the functions of a kernel object need together, as Linux 6.1 counts it: later kernels, which compile to
//! smaller steps, take what that one refuses.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

/// Bytes that a chain of calls may need (`MAX_BPF_STACK`).
pub const MOST: u32 = 512;
/// A frame takes a multiple of so many (`check_max_stack_depth` of kernel/bpf/verifier.c before Linux 6.8).
const STEP: u32 = 32;

// include/uapi/linux/bpf.h
const CLASS: u8 = 0x07;
const LOAD: u8 = 0x01;
const STORE_NUMBER: u8 = 0x02;
const STORE: u8 = 0x03;
const MOVE: u8 = 0xbf;
const ADD_NUMBER: u8 = 0x07;
const CALL: u8 = 0x85;
const FRAME: u8 = 10;
const OF_OURS: u8 = 1;
const INSTRUCTION: u64 = 8;

/// A function: its frame, and whom it calls.
#[derive(Debug, Default)]
struct Function {
    name: String,
    frame: u32,
    calls: Vec<Place>,
}

/// A section, and an offset in it.
type Place = (usize, u64);

/// The chain of calls that needs the most stack: its bytes, and its functions with their frames.
pub fn deepest(elf: &[u8]) -> Result<(u32, Vec<(String, u32)>)> {
    let functions = functions(elf)?;
    let mut chains: Vec<_> = functions.keys().map(|place| chain(&functions, *place)).collect::<Result<_>>()?;
    chains.sort_by_key(|(bytes, _)| *bytes);
    chains.pop().context("an object without functions")
}

fn chain(functions: &BTreeMap<Place, Function>, from: Place) -> Result<(u32, Vec<(String, u32)>)> {
    let function = functions.get(&from).with_context(|| format!("a call of {from:?}, where no function begins"))?;
    let below: Vec<_> = function.calls.iter().map(|called| chain(functions, *called)).collect::<Result<_>>()?;
    let (bytes, mut names) = below.into_iter().max_by_key(|(bytes, _)| *bytes).unwrap_or_default();
    names.insert(0, (function.name.clone(), function.frame));
    Ok((bytes + function.frame.max(1).next_multiple_of(STEP), names))
}

fn functions(elf: &[u8]) -> Result<BTreeMap<Place, Function>> {
    let object = object::File::parse(elf).context("read the object")?;
    let mut functions = BTreeMap::new();
    for symbol in object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let Some(index) = symbol.section_index() else { continue };
        let section = object.section_by_index(index)?;
        let relocated: BTreeMap<u64, Place> = section
            .relocations()
            .filter_map(|(offset, relocation)| match relocation.target() {
                RelocationTarget::Symbol(target) => {
                    let target = object.symbol_by_index(target).ok()?;
                    Some((offset, (target.section_index()?.0, target.address())))
                }
                _ => None,
            })
            .collect();
        let code = section.data_range(symbol.address(), symbol.size())?.context("a function outside its section")?;
        let mut function = Function { name: symbol.name()?.to_owned(), ..Function::default() };
        let mut moved = None;
        for (number, instruction) in code.chunks_exact(INSTRUCTION as usize).enumerate() {
            let offset = symbol.address() + number as u64 * INSTRUCTION;
            let &[operation, registers, low, high, ref number @ ..] = instruction else { bail!("half an instruction") };
            let (to, from) = (registers & 0x0f, registers >> 4);
            let displacement = i16::from_le_bytes([low, high]);
            let number = i32::from_le_bytes(number.try_into()?);
            let based = match operation & CLASS {
                LOAD => from == FRAME,
                STORE_NUMBER | STORE => to == FRAME,
                _ => false,
            };
            if based {
                function.frame = function.frame.max(u32::from(displacement.min(0).unsigned_abs()));
            }
            if operation == ADD_NUMBER && moved == Some(to) {
                function.frame = function.frame.max(number.min(0).unsigned_abs());
            }
            moved = (operation == MOVE && from == FRAME).then_some(to);
            if operation == CALL && from == OF_OURS {
                let behind = offset.cast_signed() + INSTRUCTION.cast_signed();
                // Of a relocation against a section, the number says where in it.
                let called = match relocated.get(&offset) {
                    Some((section, address)) if *address == 0 && number >= 0 => {
                        (*section, (u64::from(number.unsigned_abs()) + 1) * INSTRUCTION)
                    }
                    Some(place) => *place,
                    None => (index.0, (behind + i64::from(number) * INSTRUCTION.cast_signed()).cast_unsigned()),
                };
                function.calls.push(called);
            }
        }
        functions.insert((index.0, symbol.address()), function);
    }
    Ok(functions)
}
