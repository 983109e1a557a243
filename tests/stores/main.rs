//! One suite for all snapshot stores, each against a real server that the test starts: nats-server, an S3 server that checks
//! signatures, a WebDAV server, an SSH server with an SFTP server of its own and, where this machine has it, OpenSSH's
//! `sftp-server` (`$HARMONYLITE_SFTP_SERVER`, else `/usr/lib/openssh/sftp-server`), and a folder. Between client and server runs a
//! [`cable`](cable::Cable) that can be cut.
#![cfg(all(feature = "store-s3", feature = "store-webdav", feature = "store-sftp"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod cable;
mod cases;
mod faults;
mod local;
mod memory;
mod nats_store;
mod s3;
mod sftp;
mod site;
mod ssh_server;
mod webdav;

#[allow(dead_code, reason = "other suites use more of it")]
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/ports.rs"]
mod ports;

/// Runs cases against a store, each with a server of its own.
macro_rules! each {
    ($start:expr, $module:ident: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
            async fn $case() {
                if let Some(site) = $start.await {
                    crate::$module::$case(&site).await;
                }
            }
        )*
    };
}

/// The cases for every store.
macro_rules! suite {
    ($start:expr) => {
        each!($start, cases:
            objects_come_and_go
            odd_keys
            a_copy_is_an_object_of_its_own
            large_ones_stay_large
            readers_see_whole_versions
            secrets_stay_inside
            small_ones_are_bounded
        );
    };
}

/// The cases that need a network.
macro_rules! faults {
    ($start:expr) => {
        each!($start, faults:
            a_cut_upload_leaves_the_old_one
            a_cut_upload_is_tried_again
            a_cut_download_leaves_nothing
            a_silent_server_is_given_up
            a_server_that_comes_back_is_found
        );
    };
}

mod folder {
    suite!(crate::site::folder());
}
mod nats_objects {
    suite!(crate::site::nats());
    faults!(crate::site::nats());
}
mod s3_bucket {
    suite!(crate::s3::site());
    faults!(crate::s3::site());
}
mod webdav_collection {
    suite!(crate::webdav::site());
    faults!(crate::webdav::site());
}
mod sftp_folder {
    suite!(crate::sftp::site());
    faults!(crate::sftp::site());
}
mod openssh_folder {
    suite!(crate::sftp::openssh_site());
    faults!(crate::sftp::openssh_site());
}
