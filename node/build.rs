//! How the binary is linked where it is built for use, on Linux.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link/order.txt");
    println!("cargo:rerun-if-env-changed=VIVACE_KEEP_SYMBOLS");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|set| set == value);
    if !(is("PROFILE", "release") && is("DEBUG", "false") && is("CARGO_CFG_TARGET_OS", "linux")) {
        return;
    }
    // `strip` of the profile would say so, but Cargo drops it for a package with a profile of its own.
    if env::var_os("VIVACE_KEEP_SYMBOLS").is_none() {
        link("--strip-all");
    }
    // Relocations in 2 % of the room, which are read at every start; loaders understand them from glibc 2.36 on.
    if is("CARGO_CFG_TARGET_ENV", "gnu") && glibc().is_some_and(|version| version >= (2, 36)) {
        link("-z,pack-relative-relocs");
    }
    // What runs in an idle process side by side, see link/README.md. Only LLD understands it, which is what Rust uses here
    // unless told otherwise.
    let order = Path::new("link/order.txt").canonicalize();
    if let (true, Ok(order)) = (links_by_lld(), order) {
        link("--no-warn-symbol-ordering");
        link(&format!("--symbol-ordering-file={}", order.display()));
    }
}

fn link(argument: &str) {
    println!("cargo:rustc-link-arg-bins=-Wl,{argument}");
}

/// Whether the linker is the one that comes with Rust for this target, as far as can be told.
fn links_by_lld() -> bool {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let other = ["linker=", "fuse-ld=", "link-self-contained", "linker-features"];
    env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu")
        && env::var_os("RUSTC_LINKER").is_none()
        && !other.iter().any(|flag| flags.contains(flag))
}

/// Version of the C library here, which is that of the place where it runs unless somebody cross-compiles.
fn glibc() -> Option<(u32, u32)> {
    if env::var("HOST") != env::var("TARGET") {
        return None;
    }
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
