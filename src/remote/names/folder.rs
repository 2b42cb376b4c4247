//! The folders of a job, in one table: the compiler asks for the reader of each.

macro_rules! folders {
    ($($(#[$meta:meta])* $folder:ident = $name:literal;)*) => {
        /// A top-level folder of a job.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Folder {
            $($(#[$meta])* $folder,)*
        }

        impl Folder {
            /// The names of all of them.
            pub(super) const NAMES: [&'static str; [$($name),*].len()] = [$($name),*];
            #[cfg(test)]
            pub(super) const ALL: [Self; Self::NAMES.len()] = [$(Self::$folder),*];

            pub(super) const fn name(self) -> &'static str {
                match self {
                    $(Self::$folder => $name,)*
                }
            }

            /// None if this build does not know the folder.
            pub(super) fn of(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$folder),)*
                    _ => None,
                }
            }
        }
    };
}

// A name never changes, because objects of earlier versions must be found again.
folders! {
    /// The manifest chain.
    Manifests = "manifest";
    /// Everything that manifests refer to.
    Data = "data";
    /// Readers' claims on old versions.
    Pins = "pin";
    /// Users' claims on old versions.
    Savepoints = "savepoint";
    /// What the probe for conditional creates has left.
    Probes = "probe";
    /// What attempts have found out about the chain.
    Opened = "opened";
}
