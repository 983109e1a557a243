//! A TCP connection between client and server that can be cut, and a server that can be away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// No cut.
const WHOLE: i64 = i64::MAX;

/// Passes connections on to a server.
#[derive(Clone)]
pub struct Cable {
    port: u16,
    state: Arc<State>,
}

struct State {
    /// Bytes to the server before the cut.
    up: AtomicI64,
    /// Bytes to the client before the cut.
    down: AtomicI64,
    /// Cuts that were made.
    cuts: AtomicUsize,
    /// Connections to refuse.
    refusals: AtomicUsize,
    /// Whether nothing passes although connections stand.
    silent: AtomicBool,
}

impl Cable {
    /// A cable to the server on this loopback port.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            up: AtomicI64::new(WHOLE),
            down: AtomicI64::new(WHOLE),
            cuts: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            silent: AtomicBool::new(false),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let one_less = |left: usize| left.checked_sub(1);
                let refused =
                    shared
                        .refusals
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
                if refused.is_err() {
                    tokio::spawn(pass(client, server, shared.clone()));
                }
            }
        });
        Self { port, state }
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the connection once, when so many bytes have gone to the server.
    pub fn cut_upload_after(&self, bytes: i64) {
        self.state.up.store(bytes, Ordering::SeqCst);
    }

    /// Cuts the connection once, when so many bytes have gone to the client.
    pub fn cut_download_after(&self, bytes: i64) {
        self.state.down.store(bytes, Ordering::SeqCst);
    }

    /// As [`cut_upload_after`](Self::cut_upload_after), unless a cut is ahead already.
    pub fn cut_upload_again_after(&self, bytes: i64) {
        let up = &self.state.up;
        let _ = up.compare_exchange(WHOLE, bytes, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Cuts no more.
    pub fn mend(&self) {
        self.state.up.store(WHOLE, Ordering::SeqCst);
        self.state.down.store(WHOLE, Ordering::SeqCst);
    }

    /// How often it was cut.
    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Refuses the next connections.
    pub fn refuse(&self, connections: usize) {
        self.state.refusals.store(connections, Ordering::SeqCst);
    }

    /// Lets nothing pass, or all again.
    pub fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, server: u16, state: Arc<State>) {
    let address = SocketAddr::from(([127, 0, 0, 1], server));
    let Ok(server) = TcpStream::connect(address).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = pump(&mut from_client, &mut to_server, &state.up, &state);
    let down = pump(&mut from_server, &mut to_client, &state.down, &state);
    // A side that ends its half leaves the other; a cut ends both.
    tokio::pin!(up, down);
    tokio::select! {
        cut = &mut up => if !cut { down.await; },
        cut = &mut down => if !cut { up.await; },
    }
}

/// Returns whether the cable was cut.
async fn pump(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    budget: &AtomicI64,
    state: &State,
) -> bool {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let count = match from.read(&mut piece).await {
            Ok(0) | Err(_) => {
                let _ = to.shutdown().await;
                return false;
            }
            Ok(count) => count,
        };
        if state.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if budget.load(Ordering::SeqCst) != WHOLE {
            let left = budget.fetch_sub(count as i64, Ordering::SeqCst) - count as i64;
            if left <= 0 {
                budget.store(WHOLE, Ordering::SeqCst);
                state.cuts.fetch_add(1, Ordering::SeqCst);
                return true;
            }
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return true;
        }
    }
}
