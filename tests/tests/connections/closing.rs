//! What ends a connection ends its place, whoever ends it and however.
