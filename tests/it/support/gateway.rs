//! What may stand before a registry.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use waltide_stack::Stack;

/// A server in front of the registry: it gives one answer to everything, lets it pass, or lets it
/// pass with the right login only.
pub(crate) struct Gateway {
    pub(crate) address: String,
    answer: Arc<Mutex<Option<&'static str>>>,
    login: Arc<Mutex<Option<String>>>,
    registration: Arc<Mutex<Option<&'static str>>>,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the gateway");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let answer = Arc::new(Mutex::new(None));
        let given = Arc::clone(&answer);
        let login = Arc::new(Mutex::new(None));
        let wanted = Arc::clone(&login);
        let registration = Arc::new(Mutex::new(None));
        let registered = Arc::clone(&registration);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let answer: Option<&str> = *given.lock().expect("nobody panics with it");
                let login: Option<String> = wanted.lock().expect("nobody panics with it").clone();
                let registered: Option<&str> = *registered.lock().expect("nobody panics with it");
                thread::spawn(move || match (answer, login) {
                    (Some(answer), _) => refuse(client, answer),
                    (None, Some(login)) => pass_one_as(client, &login),
                    (None, None) => pass_one_unless(client, registered),
                });
            }
        });
        Self { address, answer, login, registration }
    }

    /// Lets pass only what has this in its head.
    pub(crate) fn wants(&self, login: &str) {
        *self.login.lock().expect("nobody panics with it") = Some(login.to_owned());
    }

    /// Gives this answer to whoever registers something, and lets pass who only asks.
    pub(crate) fn answers_registrations(&self, answer: Option<&'static str>) {
        *self.registration.lock().expect("nobody panics with it") = answer;
    }

    pub(crate) fn answers(&self, answer: Option<&'static str>) {
        *self.answer.lock().expect("nobody panics with it") = answer;
    }
}

fn refuse(mut client: TcpStream, answer: &str) {
    if read_head(&mut client).is_some() {
        let _ = write!(client, "HTTP/1.0 {answer}");
    }
}

/// The head of a request, and what of its body came with it.
fn read_head(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read(&mut chunk) {
            Ok(count) if count > 0 => request.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
    Some(request)
}

/// One request a connection, so that each shows its login.
fn pass_one_as(mut client: TcpStream, login: &str) {
    let Some(head) = read_head(&mut client) else { return };
    let text = String::from_utf8_lossy(&head).into_owned();
    if !text.contains(login) {
        let _ = write!(client, "HTTP/1.0 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    pass_one(client, &text);
}

/// One request a connection, so that each is judged as things are then.
fn pass_one_unless(mut client: TcpStream, registered: Option<&str>) {
    let Some(head) = read_head(&mut client) else { return };
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default();
    if let Some(answer) = registered
        && line.starts_with("POST ")
        && line.contains("/versions ")
    {
        let _ = write!(client, "HTTP/1.0 {answer}");
        return;
    }
    pass_one(client, &text);
}

fn pass_one(client: TcpStream, head: &str) {
    let Ok(mut server) = TcpStream::connect(Stack::shared().registry().address()) else { return };
    let _ = server.write_all(head.replacen("\r\n", "\r\nconnection: close\r\n", 1).as_bytes());
    carry_both_ways(client, server);
}

fn carry_both_ways(client: TcpStream, server: TcpStream) {
    let carry = |mut from: TcpStream, mut to: TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    };
    if let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) {
        thread::spawn(move || carry(from, to));
        carry(server, client);
    }
}
