//! Who this agent is to ZooKeeper, and how it knows that it speaks with ZooKeeper.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use zookeeper_client::{Error, SaslOptions, TlsOptions};

use super::identity::digest_id;

/// What makes the agents of one mesh one user.
#[derive(Clone)]
pub enum Credentials {
    /// `user:password` of the scheme `digest`: any server takes it, and names those who know it by a hash of both.
    Digest(String),
    /// A user that the servers know, by SASL DIGEST-MD5.
    Sasl {
        /// Name.
        user: String,
        /// Password.
        password: String,
    },
}

impl Credentials {
    /// Scheme and name by which access lists know this user.
    pub(super) fn id(&self) -> (&'static str, String) {
        match self {
            Self::Digest(auth) => ("digest", digest_id(auth)),
            Self::Sasl { user, .. } => ("sasl", user.clone()),
        }
    }

    pub(super) fn sasl(&self) -> Option<SaslOptions> {
        match self {
            Self::Digest(_) => None,
            Self::Sasl { user, password } => {
                Some(SaslOptions::digest_md5(user.clone(), password.clone()).into())
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id().0)
    }
}

/// TLS towards the servers; everything as PEM text.
#[derive(Clone)]
pub struct Tls {
    /// Certificates of the authorities that may vouch for a server.
    pub ca: String,
    /// This agent's own certificate, with what vouches for it, and its key.
    pub identity: Option<(String, String)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn options(&self) -> Result<TlsOptions, Error> {
        let options = TlsOptions::default().with_pem_ca(&self.ca)?;
        match &self.identity {
            None => Ok(options),
            Some((cert, key)) => options.with_pem_identity(cert, key),
        }
    }

    /// What is wrong with the certificates as they are, if anything is.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        self.config().map(drop)
    }

    /// Why no server (`HOST:PORT,…`) can be talked with by TLS, as far as a handshake tells: the client library says only that
    /// there is none. Blocks for some seconds at most.
    pub(super) fn diagnose(&self, servers: &str) -> Option<String> {
        let config = self.config().map(Arc::new);
        let config = match config {
            Ok(config) => config,
            Err(error) => return Some(error),
        };
        servers.split(',').find_map(|server| {
            let error = handshake(server, &config).err()?;
            Some(format!(
                "TLS with {server}: {error} (is this its TLS port? see --zookeeper-tls-ca and --zookeeper-tls-cert)"
            ))
        })
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        for cert in certificates(&self.ca, "--zookeeper-tls-ca")? {
            roots
                .add(cert)
                .map_err(|error| format!("--zookeeper-tls-ca: {error}"))?;
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let Some((cert, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(cert, "--zookeeper-tls-cert")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| format!("--zookeeper-tls-key: {error}"))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("--zookeeper-tls-cert and --zookeeper-tls-key: {error}"))
    }
}

fn certificates(pem: &str, flag: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(certs) if certs.is_empty() => Err(format!("{flag}: no certificate in it")),
        Ok(certs) => Ok(certs),
        Err(error) => Err(format!("{flag}: {error}")),
    }
}

/// Shakes hands and waits a moment: a server that wants a certificate of ours says so only then.
fn handshake(server: &str, config: &Arc<ClientConfig>) -> io::Result<()> {
    let (host, _) = server.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    let name =
        ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
    let address = server
        .to_socket_addrs()?
        .next()
        .ok_or(io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&address, HANDSHAKE_LIMIT)?;
    stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    match io::Read::read(&mut stream, &mut [0]) {
        // It waits for our first word: all is well.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);
