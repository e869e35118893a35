//! The allocator of the binary: mimalloc, which gives freed memory back to the system after [`KEPT`].

use std::time::Duration;

use libmimalloc_sys as sys;

pub use mimalloc::MiMalloc;

/// How long freed memory is kept for whoever needs some next, unless `MIMALLOC_PURGE_DELAY` says otherwise. mimalloc's own
/// second holds all that the searches of a second used, which is more than they need together by half.
pub const KEPT: Duration = Duration::from_millis(100);

/// Number of `mi_option_purge_delay`, the same since mimalloc 2.0; the bindings leave it out.
const PURGE_DELAY: sys::mi_option_t = 15;

/// Makes [`KEPT`] the delay of this process. A delay that the environment gives stays.
///
/// Call it before the first thread starts.
pub fn give_back_soon() {
    let millis = std::ffi::c_long::try_from(KEPT.as_millis()).unwrap_or(std::ffi::c_long::MAX);
    #[expect(unsafe_code, reason = "mimalloc's options are set by C functions alone")]
    // SAFETY: writes an integer of mimalloc's table of options, whose bounds it checks. That is unsynchronised, and only one
    // thread is there.
    unsafe {
        sys::mi_option_set_default(PURGE_DELAY, millis);
    }
}

/// Gives back at once what this thread has freed, for who has just done what it will not do again.
pub fn give_back_now() {
    #[expect(unsafe_code, reason = "mimalloc collects by a C function alone")]
    // SAFETY: looks through the memory of the calling thread, which any thread may ask for at any time.
    unsafe {
        sys::mi_collect(true);
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, PURGE_DELAY, give_back_soon, sys};

    fn delay() -> u128 {
        #[expect(unsafe_code, reason = "mimalloc's options are read by C functions alone")]
        // SAFETY: reads an integer of mimalloc's table of options, which this one test writes.
        let millis = unsafe { sys::mi_option_get(PURGE_DELAY) };
        u128::try_from(millis).expect("a delay")
    }

    #[test]
    fn what_is_freed_is_given_back_after_a_tenth_of_mimallocs_own_delay_unless_the_environment_says_when() {
        let given = std::env::var("MIMALLOC_PURGE_DELAY").ok().map(|given| given.parse().expect("milliseconds"));
        assert_eq!(delay(), given.unwrap_or(1000), "this is not the option, or mimalloc has another default");
        give_back_soon();
        assert_eq!(delay(), given.unwrap_or(KEPT.as_millis()));
    }
}
