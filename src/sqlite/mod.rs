//! Everything that talks to SQLite itself: connections, schema, identifiers, values. The database file is
//! only ever touched through SQLite (P11), but for one look at it before SQLite opens it (`leftover`).

pub mod checkpoints;
pub mod concerns;
pub mod connection;
pub mod error;
pub mod ident;
pub mod index_sql;
pub mod introspect;
pub mod journal_file;
pub mod leftover;
pub mod orphans;
pub mod row_sql;
pub mod tokens;
pub mod value;
pub mod virtual_tables;
pub mod wal_file;
