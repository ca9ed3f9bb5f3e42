//! The bpf(2) calls that aya does not offer: links with the interface that they sit on, batches of map elements, and
//! maps made only to be asked questions.
//!
//! Everything here works with CAP_BPF and CAP_NET_ADMIN, but [`program_name`] and [`program_tag`], which need
//! CAP_SYS_ADMIN: the kernel lets nobody else open an object by its number.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// What the kernel answers to a batch on a map type that has none; libc does not name it.
pub(super) const ENOTSUPP: i32 = 524;

/// `enum bpf_cmd` of include/uapi/linux/bpf.h.
#[derive(Clone, Copy)]
enum Command {
    MapCreate = 0,
    MapLookupElement = 1,
    MapUpdateElement = 2,
    MapDeleteElement = 3,
    MapNextKey = 4,
    ProgramLoad = 5,
    ObjectPin = 6,
    ObjectGet = 7,
    ProgramFdById = 13,
    ObjectInfo = 15,
    ProgramQuery = 16,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// The kernel takes what it does not find in a shorter attribute block as zero, so each call has the part it means.
fn bpf<A>(command: Command, attributes: &mut A) -> io::Result<RawFd> {
    // SAFETY: the attributes are a live `#[repr(C)]` block of the length given; every address in it is checked by the
    // callers below, who own what it points to until the call is over.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attributes), size_of::<A>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// A descriptor as an attribute.
pub(super) fn number(object: BorrowedFd<'_>) -> u32 {
    object.as_raw_fd().cast_unsigned()
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for us in the call whose result it is.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn path_string(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[repr(C)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Gives an object a name in the BPF file system.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_string(path)?;
    let mut attributes = ObjectAttributes { path: path.as_ptr() as u64, fd: number(object), flags: 0 };
    bpf(Command::ObjectPin, &mut attributes).map(drop)
}

/// Opens a pinned object.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    let mut attributes = ObjectAttributes { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    bpf(Command::ObjectGet, &mut attributes).map(owned)
}

#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// What the kernel says of a link to an interface: XDP's, or one that sees packets leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
    pub(super) program: u32,
    pub(super) padding: u32,
    /// 0 once the interface is gone.
    pub(super) interface: u32,
    pub(super) rest: [u32; 7],
}

impl LinkInfo {
    /// Of a link to a control group, the number of that; 0 once it is gone.
    pub(super) fn cgroup(&self) -> u64 {
        u64::from(self.rest[0]) << 32 | u64::from(self.interface)
    }
}

/// `BPF_LINK_TYPE_XDP`.
pub(super) const XDP_LINK: u32 = 6;
/// `BPF_LINK_TYPE_TCX`.
pub(super) const TCX_LINK: u32 = 11;

pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attributes =
        InfoAttributes { fd: number(link), length: size_of::<LinkInfo>() as u32, info: &raw mut info as u64 };
    bpf(Command::ObjectInfo, &mut attributes)?;
    Ok(info)
}

/// The head of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    rest: [u64; 6],
    name: [u8; 16],
}

fn program_info(id: u32) -> io::Result<ProgramInfo> {
    let mut by_id = [id, 0, 0];
    let program = bpf(Command::ProgramFdById, &mut by_id).map(owned)?;
    let mut info = ProgramInfo::default();
    let mut attributes = InfoAttributes {
        fd: number(program.as_fd()),
        length: size_of::<ProgramInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf(Command::ObjectInfo, &mut attributes)?;
    Ok(info)
}

/// The name of a program that may be anybody's.
pub(super) fn program_name(id: u32) -> io::Result<String> {
    let name = program_info(id)?.name;
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

/// The kernel's hash of a program's instructions.
pub(super) fn program_tag(id: u32) -> io::Result<u64> {
    program_info(id).map(|info| u64::from_be_bytes(info.tag))
}

/// `BPF_XDP`, the attach type of XDP programs.
const ATTACH_XDP: u32 = 37;
/// `BPF_TCX_EGRESS`.
const ATTACH_EGRESS: u32 = 47;
/// `XDP_FLAGS_SKB_MODE`.
pub(super) const GENERIC: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
pub(super) const NATIVE: u32 = 1 << 2;

/// Attaches an XDP program to an interface for as long as the link lives. `mode` is [`NATIVE`] or [`GENERIC`].
pub(super) fn link_create(program: BorrowedFd<'_>, interface: u32, mode: u32) -> io::Result<OwnedFd> {
    let mut attributes = [number(program), interface, ATTACH_XDP, mode];
    bpf(Command::LinkCreate, &mut attributes).map(owned)
}

/// Attaches a classifier to what leaves by an interface, behind those that are there, for as long as the link lives.
pub(super) fn link_create_egress(program: BorrowedFd<'_>, interface: u32) -> io::Result<OwnedFd> {
    let mut attributes = [number(program), interface, ATTACH_EGRESS, 0];
    bpf(Command::LinkCreate, &mut attributes).map(owned)
}

/// Attaches a program to what processes of a control group do, for as long as the link lives.
pub(super) fn link_create_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = [number(program), number(cgroup), attach_type, 0];
    bpf(Command::LinkCreate, &mut attributes).map(owned)
}

/// Whether classifiers can be linked to what leaves by an interface at all (Linux 6.6).
pub(super) fn has_egress_links(interface: u32) -> io::Result<()> {
    // The interface and the attach type, then room for what the kernel writes here: the number of programs and a revision.
    let mut attributes = [0u32; 16];
    attributes[..2].copy_from_slice(&[interface, ATTACH_EGRESS]);
    bpf(Command::ProgramQuery, &mut attributes).map(drop)
}

/// Puts another program in the place of the link's, without a packet in between that neither sees.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [number(link), number(program), 0, 0];
    bpf(Command::LinkUpdate, &mut attributes).map(drop)
}

/// Takes the program off the interface, whoever still holds the link.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(Command::LinkDetach, &mut [number(link)]).map(drop)
}

/// What a map is made of.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct MapShape {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) entries: u32,
    pub(super) flags: u32,
    /// The descriptor of a map like the inner ones, for a map of maps.
    pub(super) inner: u32,
}

pub(super) fn map_create(mut shape: MapShape) -> io::Result<OwnedFd> {
    bpf(Command::MapCreate, &mut shape).map(owned)
}

/// Writes one element. The key and the value must be of the map's sizes, here and below.
pub(super) fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    element(Command::MapUpdateElement, map, key, value.as_ptr() as u64)
}

/// Removes one element.
pub(super) fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    element(Command::MapDeleteElement, map, key, 0)
}

/// Reads one element.
pub(super) fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    element(Command::MapLookupElement, map, key, value.as_mut_ptr() as u64)
}

/// The key after another one, the first where there is none before; `false` after the last.
pub(super) fn map_next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    match element(Command::MapNextKey, map, key.unwrap_or_default(), next.as_mut_ptr() as u64) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        result => result.map(|()| true),
    }
}

fn element(command: Command, map: BorrowedFd<'_>, key: &[u8], value: u64) -> io::Result<()> {
    let key = if key.is_empty() { 0 } else { key.as_ptr() as u64 };
    bpf(command, &mut [u64::from(number(map)), key, value, 0]).map(drop)
}

/// `struct { ... } batch` of `union bpf_attr`.
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Writes elements in their order, up to the first that fails. Keys and values lie side by side, in the map's sizes.
pub(super) fn map_update_batch(map: BorrowedFd<'_>, keys: &[u8], values: &[u8], count: u32) -> io::Result<()> {
    batch(Command::MapUpdateBatch, map, keys.as_ptr() as u64, values.as_ptr() as u64, count)
}

/// Removes elements in their order, up to the first that fails.
pub(super) fn map_delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: u32) -> io::Result<()> {
    batch(Command::MapDeleteBatch, map, keys.as_ptr() as u64, 0, count)
}

fn batch(command: Command, map: BorrowedFd<'_>, keys: u64, values: u64, count: u32) -> io::Result<()> {
    let map = number(map);
    let mut attributes =
        BatchAttributes { in_batch: 0, out_batch: 0, keys, values, count, map, element_flags: 0, flags: 0 };
    bpf(command, &mut attributes).map(drop)
}

/// Every element of a hash map: keys and values. Of what changes meanwhile some may be missing, or twice.
pub(super) fn map_lookup_all(map: BorrowedFd<'_>, key: usize, value: usize) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    const BATCH: usize = 4096;
    let (mut keys, mut values) = (vec![0; BATCH * key], vec![0; BATCH * value]);
    // Where a batch ended: the kernel's own number, whatever it means.
    let mut place = [0u8; 16];
    let (mut elements, mut first) = (Vec::new(), true);
    loop {
        let mut attributes = BatchAttributes {
            in_batch: if first { 0 } else { place.as_ptr() as u64 },
            out_batch: place.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map: number(map),
            element_flags: 0,
            flags: 0,
        };
        let ended = match bpf(Command::MapLookupBatch, &mut attributes) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = attributes.count as usize;
        let pairs = keys.chunks_exact(key).zip(values.chunks_exact(value)).take(count);
        elements.extend(pairs.map(|(key, value)| (key.to_vec(), value.to_vec())));
        if ended {
            return Ok(elements);
        }
        first = false;
    }
}

/// Loads a program of a few instructions, to learn whether the kernel takes it.
pub(super) fn program_load(kind: u32, flags: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct LoadAttributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let mut attributes = LoadAttributes {
        kind,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        flags,
        attach_type: ATTACH_XDP,
        ..LoadAttributes::default()
    };
    bpf(Command::ProgramLoad, &mut attributes).map(owned)
}
