#!/usr/bin/env bash
# Installs what is missing, and only that: `install.sh build` for building, `install.sh test` for
# the tests as well, `install.sh fuzz` and `install.sh audit` for those two. Looks at what is there
# rather than at what was done before, so it may be run at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where Rust and Go usually are, for shells that were not told so.
PATH=$PATH:$HOME/.cargo/bin:/usr/local/go/bin

# The NATS server that the tests run. Kafka's version is in tests/kafka/pom.xml.
NATS_VERSION=v2.15.2
NATS_GO=1.26 # what its go.mod asks for
JAVA_AT_LEAST=17 # Kafka 4's brokers

# What the tests hold Waypost's side of Sonzai's API against: Sonzai's own SDK, and a mock server.
SONZAI_SDK_VERSION=1.8.0 # wants Python 3.12
PRISM_VERSION=5.14.2     # the latest that takes Node.js 18; later ones want 24

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Debian packages found missing. Alternatives are joined by `|`.
packages=()

need() { # need PACKAGE COMMAND...: the package unless the command succeeds
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || packages+=("$package")
}

# librdkafka is built by its own configure script and make; its TLS is the system's OpenSSL.
build_packages() {
    need gcc have cc
    need g++ have c++
    need make have make
    need pkg-config have pkg-config
    need libssl-dev pkg-config --exists openssl
}

test_packages() {
    need rabbitmq-server rabbitmq_is_there
    need util-linux have setsid
    need systemd have systemd-analyze
    need prometheus have promtool
    need 'openjdk-17-jre-headless|openjdk-21-jre-headless' java_is_recent
    kafka_is_current || need maven have mvn
}

rabbitmq_is_there() {
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || have rabbitmq-server
}

java_is_recent() {
    local version
    version=$(java -version 2>&1 | sed -n '1s/^[^"]*"\([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge "$JAVA_AT_LEAST" ]
}

install_packages() {
    [ ${#packages[@]} -gt 0 ] || return 0
    have apt-get || die "Missing: ${packages[*]}
(Debian's names). Install them with your system's package manager, then run the same command again."
    if [ "$(id -u)" = 0 ]; then
        scripts/packages.sh "${packages[@]}"
    elif have sudo && sudo -n true 2>/dev/null; then
        # sudo drops the environment; apt may need the proxy from it.
        sudo -n env http_proxy="${http_proxy-}" https_proxy="${https_proxy-}" \
            scripts/packages.sh "${packages[@]}"
    else
        local quoted
        printf -v quoted ' %q' "${packages[@]}"
        die "Missing packages, and installing them needs root. Run:
    sudo scripts/packages.sh$quoted
then the same command again."
    fi
}

rust() {
    have cargo || die "Rust is missing: install its stable toolchain with rustup, then run the same command again."
}

rust_tools() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    have rustup || die "cargo fmt or cargo clippy is missing: install rustfmt and clippy beside your cargo."
    rustup component add rustfmt clippy
}

nats() {
    [ "$(.tools/bin/nats-server --version 2>/dev/null)" = "nats-server: $NATS_VERSION" ] && return
    have go || die "Go is missing: install Go $NATS_GO or later (a Debian release's own may be older), then run the same command again.
It builds the NATS server that the tests run."
    echo "Building nats-server $NATS_VERSION ..."
    GOBIN=$PWD/.tools/bin go install "github.com/nats-io/nats-server/v2@$NATS_VERSION" ||
        die "nats-server could not be built. It needs Go $NATS_GO or later; here is $(go version)."
}

# Written last, so that it vouches for the whole folder.
kafka_stamp=.tools/kafka/pom.sha256

kafka_is_current() {
    [ "$(cat "$kafka_stamp" 2>/dev/null)" = "$(sha256sum <tests/kafka/pom.xml)" ]
}

kafka() {
    kafka_is_current && return
    echo "Collecting Kafka's jars ..."
    rm -rf .tools/kafka
    local said
    # Maven says what went wrong on its standard output.
    said=$(mvn --batch-mode --quiet --file tests/kafka/pom.xml dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/.tools/kafka" 2>&1) ||
        die "$said
Maven could not collect Kafka's jars."
    sha256sum <tests/kafka/pom.xml >"$kafka_stamp"
}

# Those two are left out where their language is missing: their tests say so. What is there but cannot
# be installed is told, and continuous integration fails on it.
optional() { # optional NAME COMMAND...
    local name=$1
    shift
    "$@" && return
    [ "${CI-}" != true ] || die "$name could not be installed."
    echo "$name could not be installed: the tests that want it are skipped." >&2
}

# A Python that the SDK takes; pyenv's own are not all on the PATH.
recent_python() {
    local candidate
    for candidate in python3.12 python3.13 python3.14 python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python; do
        "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 || continue
        printf '%s\n' "$candidate"
        return
    done
    return 1
}

sonzai_sdk_version() {
    .tools/sonzai-sdk/bin/python -c 'from importlib.metadata import version; print(version("sonzai"))' 2>/dev/null
}

sonzai_sdk() {
    [ "$(sonzai_sdk_version)" != "$SONZAI_SDK_VERSION" ] || return 0
    local python
    python=$(recent_python) || {
        echo "No Python 3.12 or later is here: the test with Sonzai's SDK is skipped."
        return 0
    }
    echo "Installing Sonzai's SDK $SONZAI_SDK_VERSION ..."
    rm -rf .tools/sonzai-sdk
    "$python" -m venv .tools/sonzai-sdk &&
        .tools/sonzai-sdk/bin/python -m pip install --quiet --disable-pip-version-check "sonzai==$SONZAI_SDK_VERSION" ||
        { rm -rf .tools/sonzai-sdk; return 1; }
}

prism_runs() {
    [ "$(.tools/prism/node_modules/.bin/prism --version 2>/dev/null)" = "$PRISM_VERSION" ]
}

prism() {
    ! prism_runs || return 0
    have node && have npm || {
        echo "No Node.js with npm is here: the tests with Prism are skipped."
        return 0
    }
    echo "Installing Prism $PRISM_VERSION ..."
    rm -rf .tools/prism
    # An older Node.js installs what it cannot run.
    npm install --prefix .tools/prism --silent --no-audit --no-fund --no-save "@stoplight/prism-cli@$PRISM_VERSION" &&
        prism_runs ||
        { rm -rf .tools/prism; return 1; }
}

fuzz_tools() {
    have rustup || die "rustup is missing: fuzzing needs a nightly toolchain beside the stable one."
    rustup run nightly rustc --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
    have cargo-fuzz || cargo install --locked cargo-fuzz
}

audit_tools() {
    have cargo-deny || cargo install --locked cargo-deny
}

case ${1-} in
build)
    build_packages
    install_packages
    rust
    ;;
test)
    build_packages
    test_packages
    install_packages
    rust
    rust_tools
    nats
    kafka
    optional "Sonzai's SDK" sonzai_sdk
    optional Prism prism
    ;;
fuzz)
    build_packages
    install_packages
    rust
    fuzz_tools
    ;;
audit)
    build_packages
    install_packages
    rust
    audit_tools
    ;;
*)
    die "usage: scripts/install.sh build|test|fuzz|audit"
    ;;
esac
