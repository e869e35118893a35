//! How the binary is linked where it is built for use, on Linux.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|set| set == value);
    if !(is("PROFILE", "release") && is("DEBUG", "false") && is("CARGO_CFG_TARGET_OS", "linux")) {
        return;
    }
    // `strip` of the profile would say so, but Cargo drops it for a package with a profile of its own.
    println!("cargo:rustc-link-arg-bins=-Wl,--strip-all");
    // Relocations in 2 % of the room, which are read at every start; loaders understand them from glibc 2.36 on.
    if is("CARGO_CFG_TARGET_ENV", "gnu") && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
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
