# The image of Vivace: one static binary and the certificates of public authorities; no shell, no package, no other file.
#
#   docker build -t vivace:0.1.0 .
#
# glibc is linked in with it; what its resolver needs (files, DNS) has been part of libc.a since 2.34, so nothing is loaded at run time.
FROM rust:1.95-trixie AS build
WORKDIR /src
COPY . .
# The target is named so that the flag does not reach procedural macros, which cannot be static.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    target=$(rustc -vV | sed -n 's/^host: //p') \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" -p vivace-node --bin vivace \
    && cp "target/$target/release/vivace" /vivace \
    && ldd /vivace 2>&1 | grep -Eq 'statically linked|not a dynamic executable' \
    && mkdir -p /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Where data goes when no volume is mounted.
COPY --from=build --chown=10001:10001 /data /var/tempo
COPY --from=build /vivace /usr/bin/vivace
USER 10001:10001
EXPOSE 3200 9095 4317 4318 7946/tcp 7946/udp
# Kubernetes has probes of its own; this is for Docker.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/usr/bin/vivace", "health"]
ENTRYPOINT ["/usr/bin/vivace"]
