//! A flood without hardware: live frames through `BPF_PROG_TEST_RUN`, sent out of the near end of the wire by `generate`,
//! about 3.8 million a second on one CPU; and the counter at the far end, behind throttle.

use crate::{
    kernel::{self, Order, Received, Sent},
    machine,
    netns::Namespace,
    wire::{FAR, NEAR, Wire},
};
use anyhow::{Context, Result, anyhow, bail};
use aya::{
    Ebpf,
    maps::{Array, Map, MapData, PerCpuArray},
    programs::{ProgramError, SchedClassifier, TcAttachType, TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use std::{
    io::ErrorKind,
    os::{fd::AsFd as _, unix::thread::JoinHandleExt as _},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Frames that reach the receiver at a time: below the 256 that a veth queue holds.
const BATCH: u32 = 64;
/// Frames of one run: minutes of them. A run begins with tens of milliseconds in which the kernel makes its calls of the
/// program direct, so it is not cut short to look at a flag; a signal ends it.
const RUN: u32 = i32::MAX as u32;
/// Frames of the first run where the kernel preempts its readers, and how long the later ones may take there: a run is
/// one reader then, and while it lasts nobody can attach a program, or begin another run.
const SHORT_RUN: u32 = 1 << 10;
const SHORT: Duration = Duration::from_millis(200);

/// The LRU baseline is of no use here.
const NO_LRU: u32 = 64;

/// The near end with what its driver needs to take frames.
#[derive(Debug)]
pub struct Sender {
    /// Attached while this lives.
    _object: Ebpf,
    interface: u32,
}

impl Sender {
    /// Prepares the near end of a wire.
    pub fn on(wire: &Wire) -> Result<Self> {
        let mut object = kernel::load(NO_LRU)?;
        let pass = kernel::xdp(&mut object, "pass")?;
        wire.near.enter(|| pass.attach(NEAR, XdpMode::Driver))?.context("attach to the near end")?;
        Ok(Self { _object: object, interface: wire.near.interface_index(NEAR)? })
    }

    /// Starts a flood from one CPU. It goes on until it is stopped or dropped, and may be given other orders.
    pub fn start(&self, host: &Namespace, cpu: usize, frame: &[u8], order: Order) -> Result<Flood> {
        self.start_on(host, cpu, machine::pin_to, frame, order)
    }

    /// The same, held up by no other process: see [`machine::seize`].
    pub fn start_steady(&self, host: &Namespace, cpu: usize, frame: &[u8], order: Order) -> Result<Flood> {
        self.start_on(host, cpu, machine::seize, frame, order)
    }

    fn start_on(
        &self,
        host: &Namespace,
        cpu: usize,
        take: fn(usize) -> Result<()>,
        frame: &[u8],
        order: Order,
    ) -> Result<Flood> {
        let mut object = kernel::load(NO_LRU)?;
        let mut orders = orders(&object)?;
        orders.set(0, order, 0)?;
        let unsent = Sent { state: seed(cpu), ..Sent::default() };
        Array::try_from(object.map_mut("SENT").context("no map SENT")?)?.set(0, unsent, 0)?;
        kernel::xdp(&mut object, "generate")?;
        interruptible();
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, started) = mpsc::sync_channel(0);
        let run = Run { interface: self.interface, cpu, frame: frame.to_vec() };
        let entry = host.entry()?;
        let thread = {
            let stop = stop.clone();
            thread::spawn(move || {
                take(cpu)?;
                entry.enter()?;
                ready.send(()).map_err(|_| anyhow!("nobody waits for the flood"))?;
                let program: &mut Xdp = object.program_mut("generate").context("no program generate")?.try_into()?;
                let mut frames = if machine::preempts_readers() { SHORT_RUN } else { RUN };
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    run.go(program, frames)?;
                    frames = next_run(frames, start.elapsed());
                }
                Ok(Array::<_, Sent>::try_from(object.map("SENT").context("no map SENT")?)?.get(&0, 0)?)
            })
        };
        // A thread that failed before it was ready says why when it is joined.
        if started.recv().is_err() {
            return Err(join(thread).err().unwrap_or_else(|| anyhow!("the flood ended before it began")));
        }
        Ok(Flood { stop, thread: Some(thread), orders })
    }
}

/// Where the draws of a flood from this CPU start.
fn seed(cpu: usize) -> u64 {
    0x2545_f491_4f6c_dd1d ^ cpu as u64
}

/// The sources of a flood from this CPU that has sent so many frames, one for each frame.
pub fn sources(cpu: usize, order: Order, frames: u64) -> impl Iterator<Item = u64> {
    let mut state = seed(cpu);
    (0..frames).map(move |_| {
        state = kernel::xorshift(state);
        order.flood_of(state)
    })
}

/// How many frames the run has that follows one of so many, which took so long.
fn next_run(frames: u32, took: Duration) -> u32 {
    match frames {
        RUN => RUN,
        _ if took > SHORT => (frames / 2).max(SHORT_RUN),
        _ if took < SHORT / 4 => (frames * 2).min(RUN / 2),
        _ => frames,
    }
}

/// What a run of the generator needs.
struct Run {
    interface: u32,
    cpu: usize,
    frame: Vec<u8>,
}

impl Run {
    /// Sends so many frames, or fewer if a signal comes.
    fn go(&self, program: &Xdp, frames: u32) -> Result<()> {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let words = [0, self.frame.len() as u32, 0, self.interface, 0, 0];
        let context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut options = TestRunOptions::new();
        options.data_in = Some(&self.frame);
        options.ctx_in = Some(&context);
        options.repeat = frames;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        match program.test_run(options) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error).with_context(|| format!("send frames from CPU {}", self.cpu)),
        }
    }
}

/// A flood under way.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Sent>>>,
    orders: Array<MapData, Order>,
}

/// The order of an object, to be written while its programs run.
fn orders(object: &Ebpf) -> Result<Array<MapData, Order>> {
    let Some(Map::Array(map)) = object.map("ORDER") else { bail!("no map ORDER") };
    let own = MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?)?;
    Ok(Map::Array(own).try_into()?)
}

impl Flood {
    /// Gives it another order.
    pub fn follow(&mut self, order: Order) -> Result<()> {
        Ok(self.orders.set(0, order, 0)?)
    }

    /// Ends it, and says what was sent.
    pub fn stop(mut self) -> Result<Sent> {
        self.end().expect("only `stop` and `drop` end the thread")
    }

    /// Ends several as nearly at once as can be, and says what each sent.
    pub fn stop_all(floods: Vec<Self>) -> Result<Vec<Sent>> {
        floods.iter().for_each(Self::interrupt);
        floods.into_iter().map(Self::stop).collect()
    }

    fn interrupt(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            // SAFETY: the thread is not joined yet, so its handle is valid; the signal has a handler.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
        }
    }

    fn end(&mut self) -> Option<Result<Sent>> {
        // A signal between the thread's look at the flag and its system call is lost, so there may be another.
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            self.interrupt();
            thread::sleep(Duration::from_millis(1));
        }
        self.thread.take().map(join)
    }
}

/// Makes SIGUSR1 a signal that ends a system call and nothing else.
fn interruptible() {
    extern "C" fn nothing(_: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler does nothing, and a zeroed mask is an empty one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
        }
    });
}

impl Drop for Flood {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            machine::print(&format!("a flood failed: {error:#}"));
        }
    }
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Attaches a classifier to an interface of this thread's namespace.
pub fn attach(program: &mut SchedClassifier, interface: &str, direction: TcAttachType) -> Result<()> {
    if let Err(error) = program.attach(interface, direction) {
        // Kernels before 6.6 want a queueing discipline for it first.
        aya::programs::tc::qdisc_add_clsact(interface).with_context(|| error.to_string())?;
        program.attach(interface, direction)?;
    }
    Ok(())
}

/// Counts, and ends, what comes through to the far host's network stack.
#[derive(Debug)]
pub struct Counter(Ebpf);

impl Counter {
    /// Puts it behind throttle; frames of the order's honest sources are counted apart.
    pub fn on(wire: &Wire, order: Order) -> Result<Self> {
        let mut object = kernel::load(NO_LRU)?;
        orders(&object)?.set(0, order, 0)?;
        let program: &mut SchedClassifier = object.program_mut("count").context("no program count")?.try_into()?;
        program.load().context("load count")?;
        wire.far.enter(|| attach(program, FAR, TcAttachType::Ingress))?.context("attach count")?;
        Ok(Self(object))
    }

    /// What came through since it was put there.
    pub fn received(&self) -> Result<Received> {
        let map = PerCpuArray::<_, Received>::try_from(self.0.map("RECEIVED").context("no map RECEIVED")?)?;
        let sum = map.get(&0, 0)?.iter().fold(Received::default(), |sum, cpu| Received {
            honest: sum.honest + cpu.honest,
            honest_bytes: sum.honest_bytes + cpu.honest_bytes,
            other: sum.other + cpu.other,
            other_bytes: sum.other_bytes + cpu.other_bytes,
        });
        Ok(sum)
    }
}
