//! Identities: UUIDs stored in data directories, so that a new address keeps them.

/// Defines the identity of something, and the error for a text that is none.
macro_rules! identity {
    ($(#[$doc:meta])* $id:ident, $error:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $id(uuid::Uuid);

        impl $id {
            /// The identity with this UUID.
            pub const fn new(uuid: uuid::Uuid) -> Self {
                Self(uuid)
            }

            /// Its 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl std::fmt::Display for $id {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        /// The text is not a UUID.
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        #[error("{} is a UUID such as 2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a10", $what)]
        pub struct $error;

        impl std::str::FromStr for $id {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                uuid::Uuid::try_parse(text).map(Self).map_err(|_| $error)
            }
        }
    };
}

pub(crate) use identity;
