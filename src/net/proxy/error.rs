//! Why there is no connection: whose fault it is, and how several failures become one text.
//!
//! Owns [`Error`]. Made by `proxy` and `proxy::server`; read by `resolver` and `egress`.

use crate::net::target::Target;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name could not be resolved here.
    #[error("dns: {reason}")]
    Dns {
        /// The name.
        host: String,
        /// Who was asked, and what they said.
        reason: String,
    },
    /// The target did not answer, directly or through a proxy that works.
    #[error("connect: {to}: {reason}")]
    Connect {
        /// Where the connection was to lead.
        to: Target,
        /// What was said, and through whom.
        reason: String,
        /// Whether every way that was asked is an HTTP proxy that does not want to lead there, rather than having failed to.
        is_refused: bool,
    },
    /// The TLS handshake with the target failed.
    #[error("tls: {to}: {reason}")]
    Tls {
        /// With whom.
        to: Target,
        /// What went wrong, and through whom.
        reason: String,
    },
    /// The proxy itself is out of order, or does not let us in.
    #[error("proxy: {proxy}: {reason}")]
    Proxy {
        /// Its name, without anything secret.
        proxy: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Makes one error of what several ways said. What was said of the target counts more than what is wrong with a proxy.
pub(super) fn together(mut errors: Vec<Error>, to: &Target) -> Error {
    let weight = |error: &Error| match error {
        Error::Tls { .. } => 3,
        Error::Connect { .. } => 2,
        Error::Dns { .. } => 1,
        Error::Proxy { .. } => 0,
    };
    let refused = errors.iter().all(|error| matches!(error, Error::Connect { is_refused: true, .. }));
    let heaviest = errors.iter().map(weight).max().unwrap_or_default();
    let Some(first) = errors.iter().position(|error| weight(error) == heaviest) else {
        return Error::Connect { to: to.clone(), reason: "no way to try".to_owned(), is_refused: false };
    };
    let mut first = errors.remove(first);
    let others: Vec<String> = errors.iter().map(Error::short).collect();
    let others = if others.is_empty() { String::new() } else { format!("; {}", others.join("; ")) };
    match &mut first {
        Error::Connect { reason, is_refused, .. } => {
            reason.push_str(&others);
            *is_refused = refused;
        }
        Error::Dns { reason, .. } | Error::Tls { reason, .. } | Error::Proxy { reason, .. } => {
            reason.push_str(&others);
        }
    }
    first
}

impl Error {
    /// Returns the error as it stands behind another one of the same connection.
    fn short(&self) -> String {
        match self {
            Self::Connect { reason, .. } => reason.clone(),
            Self::Tls { reason, .. } => format!("tls: {reason}"),
            Self::Proxy { proxy, reason } => format!("{proxy}: {reason}"),
            Self::Dns { reason, .. } => format!("dns: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::target::Host;

    /// What was found out about the target stands first; nothing is lost.
    #[test]
    fn several_become_one() {
        let to = || Target { host: Host::parse("a.example"), port: 443 };
        let proxy =
            |name: &str| Error::Proxy { proxy: format!("http://{name}.example"), reason: "no answer".to_owned() };
        let target = |text: &str, is_refused| Error::Connect { to: to(), reason: text.to_owned(), is_refused };
        for (errors, expected) in [
            (vec![proxy("p")], "proxy: http://p.example: no answer"),
            (vec![proxy("p"), proxy("q")], "proxy: http://p.example: no answer; http://q.example: no answer"),
            (
                vec![proxy("p"), target("through x: gone", false), target("through y: no", true)],
                "connect: a.example:443: through x: gone; http://p.example: no answer; through y: no",
            ),
            (vec![], "connect: a.example:443: no way to try"),
        ] {
            assert_eq!(together(errors, &to()).to_string(), expected);
        }
        // It is refused only if all who were asked said so: one that is merely down might have led there.
        for (errors, expected) in [
            (vec![target("through y: no", true)], true),
            (vec![target("through x: no", true), target("through y: no", true)], true),
            (vec![target("through x: gone", false), target("through y: no", true)], false),
            (vec![proxy("p"), target("through y: no", true)], false),
        ] {
            let said = together(errors, &to());
            assert!(matches!(said, Error::Connect { is_refused, .. } if is_refused == expected), "{said:?}");
        }
    }
}
