//! The `vivace` binary.

#[global_allocator]
static ALLOCATOR: vivace_heap::MiMalloc = vivace_heap::MiMalloc;

fn main() -> std::process::ExitCode {
    vivace_heap::give_back_soon();
    vivace_node::main(std::env::args().skip(1))
}
