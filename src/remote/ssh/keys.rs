//! Keys from files: their public half first, the private one when it is needed.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use russh::keys::ssh_key::Certificate;
use russh::keys::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::prompter::Prompter;
use crate::model::escape::printable;

/// A key file larger than this is no key.
const MAX_KEY_BYTES: u64 = 1024 * 1024;
/// How often a person may mistype a passphrase, as ssh has it.
pub const PASSPHRASE_TRIES: usize = 3;

/// A file that may let us in.
pub struct KeyFile {
    pub path: PathBuf,
    /// Known without the passphrase, from the file itself or from the `.pub` beside it.
    pub public: Option<PublicKey>,
    /// From `-cert.pub` beside it.
    pub certificate: Option<Certificate>,
    private: PrivateHalf,
    /// A person is asked once, also where a key and its certificate are offered in turn.
    unlocked: Mutex<Option<Result<Arc<PrivateKey>, NoKey>>>,
}

enum PrivateHalf {
    Plain(Arc<PrivateKey>),
    /// The file's text, still encrypted.
    Encrypted(Zeroizing<String>),
    /// A public key only: the agent or a token holds the rest.
    Elsewhere,
}

/// Why there is no private key.
#[derive(Debug, Clone)]
pub enum NoKey {
    /// Nobody gave a passphrase.
    NotGiven,
    WrongPassphrase,
    Unreadable(String),
    Elsewhere,
}

impl KeyFile {
    /// `Ok(None)` where there is no such file. `with_certificate`: also the one beside it.
    pub fn read(path: &Path, with_certificate: bool) -> Result<Option<KeyFile>, String> {
        let certificate = match with_certificate {
            true => read_certificate(&beside(path, "-cert.pub"))?,
            false => None,
        };
        let file = |public, private| KeyFile {
            path: path.to_path_buf(),
            public,
            certificate,
            private,
            unlocked: Mutex::new(None),
        };
        let Some(text) = read_text(path)? else {
            // The private half may live in an agent while the public one stands here.
            let public = read_public(&beside(path, ".pub"));
            return Ok(public.map(|public| file(Some(public), PrivateHalf::Elsewhere)));
        };
        if let Ok(public) = PublicKey::from_openssh(text.trim()) {
            return Ok(Some(file(Some(public), PrivateHalf::Elsewhere)));
        }
        let (public, private) = match PrivateKey::from_openssh(text.as_str()) {
            Ok(key) if key.is_encrypted() => (Some(key.public_key().clone()), PrivateHalf::Encrypted(text)),
            Ok(key) => (Some(key.public_key().clone()), PrivateHalf::Plain(Arc::new(key))),
            // Older formats (PEM, PKCS#8) hide the public half of an encrypted key.
            Err(_) => match russh::keys::decode_secret_key(&text, None) {
                Ok(key) => (Some(key.public_key().clone()), PrivateHalf::Plain(Arc::new(key))),
                Err(_) if is_old_cipher(&text) => {
                    return Err(format!(
                        "{}: encrypted in an old way that haul cannot read; give it to ssh-agent, or rewrite \
                         it with: ssh-keygen -p -f {}",
                        show(path),
                        show(path)
                    ));
                }
                Err(_) if text.contains("ENCRYPTED") => {
                    (read_public(&beside(path, ".pub")), PrivateHalf::Encrypted(text))
                }
                Err(error) => {
                    return Err(format!(
                        "{}: not a key that haul can read: {}",
                        show(path),
                        printable(error.to_string().as_bytes())
                    ));
                }
            },
        };
        Ok(Some(file(public, private)))
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self.private, PrivateHalf::Encrypted(_))
    }

    pub fn has_private_half(&self) -> bool {
        !matches!(self.private, PrivateHalf::Elsewhere)
    }

    /// Blocks: asks for a passphrase where it needs one, and decrypts, which takes long
    /// on purpose. The second time it answers as the first time.
    pub fn unlock(&self, prompter: &dyn Prompter) -> Result<Arc<PrivateKey>, NoKey> {
        let Ok(mut unlocked) = self.unlocked.lock() else { return Err(NoKey::NotGiven) };
        unlocked.get_or_insert_with(|| self.unlock_first(prompter)).clone()
    }

    fn unlock_first(&self, prompter: &dyn Prompter) -> Result<Arc<PrivateKey>, NoKey> {
        let text = match &self.private {
            PrivateHalf::Plain(key) => return Ok(key.clone()),
            PrivateHalf::Elsewhere => return Err(NoKey::Elsewhere),
            PrivateHalf::Encrypted(text) => text,
        };
        for _ in 0..PASSPHRASE_TRIES {
            let Some(passphrase) = prompter.passphrase(&self.path) else { return Err(NoKey::NotGiven) };
            match decrypt(text, &passphrase) {
                Ok(key) => return Ok(Arc::new(key)),
                Err(Some(message)) => return Err(NoKey::Unreadable(message)),
                Err(None) => {}
            }
        }
        Err(NoKey::WrongPassphrase)
    }
}

/// PEM's own encryption, of which only RSA under AES-128-CBC can be read: what OpenSSH
/// wrote before 7.8.
fn is_old_cipher(text: &str) -> bool {
    let rsa = text.contains("-----BEGIN RSA PRIVATE KEY-----") && text.contains("DEK-Info: AES-128-CBC,");
    text.contains("Proc-Type: 4,ENCRYPTED") && !rsa
}

/// `Err(None)` for a wrong passphrase.
fn decrypt(text: &str, passphrase: &str) -> Result<PrivateKey, Option<String>> {
    match PrivateKey::from_openssh(text) {
        Ok(key) => key.decrypt(passphrase).map_err(|error| match error {
            russh::keys::ssh_key::Error::Crypto => None,
            other => Some(printable(other.to_string().as_bytes())),
        }),
        // The older formats do not tell a wrong passphrase from a broken file.
        Err(_) => russh::keys::decode_secret_key(text, Some(passphrase)).map_err(|_| None),
    }
}

fn read_text(path: &Path) -> Result<Option<Zeroizing<String>>, String> {
    let in_file = |error: std::io::Error| format!("{}: {error}", show(path));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(in_file(error)),
    };
    // Sized beforehand: a growing buffer would leave copies of the key behind.
    let size = file.metadata().map_err(in_file)?.len().min(MAX_KEY_BYTES);
    let mut text = Zeroizing::new(String::with_capacity(size as usize + 1));
    file.take(MAX_KEY_BYTES).read_to_string(&mut text).map_err(in_file)?;
    Ok(Some(text))
}

fn read_public(path: &Path) -> Option<PublicKey> {
    PublicKey::from_openssh(read_text(path).ok()??.trim()).ok()
}

/// `Ok(None)` where there is no such file.
pub fn read_certificate(path: &Path) -> Result<Option<Certificate>, String> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    match Certificate::from_openssh(text.trim()) {
        Ok(certificate) => Ok(Some(certificate)),
        Err(error) => Err(format!(
            "{}: not a certificate that haul can read: {}",
            show(path),
            printable(error.to_string().as_bytes())
        )),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

pub fn show(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}
