//! An HTTP server on a port of 127.0.0.1.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use axum::Router;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// How long dropping waits for the port to be free.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A running server. It stops when it is dropped.
#[derive(Debug)]
pub(super) struct LocalServer {
    /// Where it listens.
    pub(super) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    /// In a mutex, as a receiver cannot be shared between threads.
    stopped: Mutex<mpsc::Receiver<()>>,
}

impl LocalServer {
    /// Serves `router` on a port that the system chooses, on the process's runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Network`], retryable, when the system gives no port.
    pub(super) fn start(name: &'static str, router: Router) -> Result<Self> {
        let unbound = |e| {
            let text = format!(
                "no port of 127.0.0.1 could be opened for the sandbox's {name}: check that this process may listen there"
            );
            Error::new(ErrorKind::Network, text).with_retryable(true).with_source(e)
        };
        let runtime = crate::runtime::handle()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(unbound)?;
        listener.set_nonblocking(true).map_err(unbound)?;
        let address = listener.local_addr().map_err(unbound)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(unbound)?
        };
        let (stop, stopping) = oneshot::channel::<()>();
        let (ended, stopped) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // An error means that the sender was dropped, which also ends the server.
            let signal = async move { drop(stopping.await) };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(signal).await {
                tracing::warn!(%error, "the server of the sandbox's {name} stopped");
            }
            let _ = ended.send(());
        });
        Ok(Self { address, stop: Some(stop), stopped: Mutex::new(stopped) })
    }

    /// Its base URL, such as `http://127.0.0.1:40123`.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let stopped = self.stopped.get_mut().unwrap_or_else(PoisonError::into_inner);
        let wait = || _ = stopped.recv_timeout(STOP_PATIENCE);
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Err(_) => wait(),
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
            // The only thread of this runtime must not block: the server stops on its own a moment later.
            Ok(_) => {}
        }
    }
}
