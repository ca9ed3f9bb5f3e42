//! The sampled refusals that the programs report, and their debugging output.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData, RingBuf};
use aya_log::EbpfLogger;
use throttle_common::records::Event;
use tokio::io::{Interest, unix::AsyncFd};

use super::{Datapath, mapped::record};

/// The stream of reports. Reports that find the buffer full are counted in [`Datapath::losses`].
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    _reader: Arc<()>,
}

impl Events {
    /// The next report; may be dropped at any time without losing one.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            while let Some(bytes) = ready.get_inner_mut().next() {
                if let Some(event) = record(&bytes) {
                    return Ok(event);
                }
            }
            ready.clear_ready();
        }
    }
}

/// Lets tokio wait for a descriptor to become readable.
pub(super) fn readable<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what this module and `Watch` pass owns its descriptor and keeps it for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }?)
}

impl Datapath {
    /// The stream of reports, which has one reader: this fails while another one lives. Needs a tokio runtime.
    pub fn events(&mut self) -> Result<Events> {
        ensure!(self.reader.upgrade().is_none(), "the events are read already");
        let map = MapData::from_fd(self.events.fd().as_fd().try_clone_to_owned()?)?;
        let ring = readable(RingBuf::try_from(Map::RingBuf(map))?).context("cannot wait for events")?;
        let reader = Arc::new(());
        self.reader = Arc::downgrade(&reader);
        Ok(Events { ring, _reader: reader })
    }

    /// Hands the programs' debugging output to the `log` facade until that fails; `None` where
    /// [`super::Options::debug`] is off. Needs a tokio runtime.
    pub fn kernel_log(&mut self) -> Result<Option<impl Future<Output = io::Result<()>> + Send + use<>>> {
        if !self.debug {
            return Ok(None);
        }
        let mut lines = readable(EbpfLogger::init(&mut self.ebpf)?).context("cannot wait for debugging output")?;
        Ok(Some(async move {
            loop {
                let mut ready = lines.readable_mut().await?;
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }))
    }
}
