//! A connection to the broker that can be cut for one node while the others keep theirs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Passes connections on to a server on the loopback.
pub struct Cable {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    swallow: bool,
    standing: Vec<TcpStream>,
}

impl Cable {
    /// A cable to this port.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = shared.lock().unwrap();
                if state.cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let copy = |stream: &TcpStream| stream.try_clone().unwrap();
                state.standing.extend([copy(&client), copy(&server)]);
                let (mut from, mut to) = (copy(&client), copy(&server));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let _ = deliver(&server, &client, &shared);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, state }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends the connections there are, and takes no new ones.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.cut = true;
        for stream in state.standing.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on messages of streams do not come through, or do again; all else does, so that connections look well.
    pub fn swallow(&self, swallow: bool) {
        self.state.lock().unwrap().swallow = swallow;
    }

    /// Takes connections again.
    pub fn mend(&self) {
        self.state.lock().unwrap().cut = false;
    }
}

/// Passes on what a server sends: lines, of which those that announce a message are followed by it.
fn deliver(
    server: &TcpStream,
    mut client: &TcpStream,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let mut server = BufReader::new(server);
    let mut line = Vec::new();
    while server.read_until(b'\n', &mut line)? > 0 {
        if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
            let text = String::from_utf8_lossy(&line).into_owned();
            let length = text.trim_end().rsplit(' ').next().unwrap().parse::<u64>();
            let length = length.map_err(std::io::Error::other)? + 2;
            server.by_ref().take(length).read_to_end(&mut line)?;
            if text.contains(" $JS.ACK.") && state.lock().unwrap().swallow {
                line.clear();
                continue;
            }
        }
        client.write_all(&line)?;
        line.clear();
    }
    Ok(())
}
