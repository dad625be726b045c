# pgweir in a container: built from source, run as a user without rights on a slim base.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package pgweir

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --no-create-home pgweir
COPY --from=build /src/target/release/pgweir /usr/local/bin/pgweir
USER pgweir
EXPOSE 6432 9632
# SIGTERM (the default stop signal) drains.
ENTRYPOINT ["pgweir"]
CMD ["run", "--config", "/etc/pgweir/pgweir.toml"]
