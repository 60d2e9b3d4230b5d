//! An ssh-agent with one security key (FIDO), whose owner always touches it. Only so can a
//! real sshd check such signatures without the hardware.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::BASE64;
use russh::keys::signature::Signer;
use russh::keys::ssh_key::Signature;
use russh::keys::{Algorithm, PrivateKey};
use sha2::{Digest, Sha256};

const KEY_TYPE: &str = "sk-ssh-ed25519@openssh.com";
const APPLICATION: &str = "ssh:";
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// The owner was there.
const USER_PRESENT: u8 = 1;

pub struct Token {
    socket: PathBuf,
    blob: Vec<u8>,
    touches: Arc<AtomicUsize>,
}

impl Token {
    /// Its socket stands in `directory`. It serves as long as the test runs.
    pub fn start(directory: &Path) -> Token {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a key");
        let public = key.public_key().key_data().ed25519().expect("Ed25519").0;
        let mut blob = string(KEY_TYPE.as_bytes());
        blob.extend(string(&public));
        blob.extend(string(APPLICATION.as_bytes()));
        let socket = directory.join("token");
        let listener = UnixListener::bind(&socket).expect("bind");
        let touches = Arc::new(AtomicUsize::new(0));
        let (key, served, touched) = (Arc::new(key), blob.clone(), touches.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (key, blob, touches) = (key.clone(), served.clone(), touched.clone());
                std::thread::spawn(move || serve(stream, &key, &blob, &touches));
            }
        });
        Token { socket, blob, touches }
    }

    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// A line of authorized_keys.
    pub fn public_key(&self) -> String {
        format!("{KEY_TYPE} {}\n", BASE64.encode(&self.blob))
    }

    pub fn touches(&self) -> usize {
        self.touches.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: UnixStream, key: &PrivateKey, blob: &[u8], touches: &AtomicUsize) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request).expect("a request");
        let answer = match request[0] {
            REQUEST_IDENTITIES => {
                let mut answer = vec![IDENTITIES_ANSWER, 0, 0, 0, 1];
                answer.extend(string(blob));
                answer.extend(string(b"token"));
                answer
            }
            SIGN_REQUEST => {
                let (_key, rest) = take(&request[1..]);
                let (data, _flags) = take(rest);
                let counter = touches.fetch_add(1, Ordering::SeqCst) as u32;
                let mut answer = vec![SIGN_RESPONSE];
                answer.extend(string(&sign(key, data, counter)));
                answer
            }
            _ => vec![FAILURE],
        };
        stream.write_all(&string(&answer)).expect("an answer");
    }
}

fn sign(key: &PrivateKey, data: &[u8], counter: u32) -> Vec<u8> {
    let mut signed = Sha256::digest(APPLICATION).to_vec();
    signed.push(USER_PRESENT);
    signed.extend(counter.to_be_bytes());
    signed.extend(Sha256::digest(data));
    let signature: Signature = key.try_sign(&signed).expect("a signature");
    let mut blob = string(KEY_TYPE.as_bytes());
    blob.extend(string(signature.as_bytes()));
    blob.push(USER_PRESENT);
    blob.extend(counter.to_be_bytes());
    blob
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut text = (bytes.len() as u32).to_be_bytes().to_vec();
    text.extend_from_slice(bytes);
    text
}

fn take(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first_chunk::<4>().expect("a length");
    rest.split_at(u32::from_be_bytes(*length) as usize)
}
