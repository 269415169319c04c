#!/usr/bin/env bash
# Writes .env with random secrets, readable by its owner alone, unless there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ ! -e .env ] || exit 0

random() {
    od -An -tx1 -N32 /dev/urandom | tr -d ' \n'
}

umask 077
cat >.env.new <<END
# Secrets that routes.yaml refers to. Made up at the first \`make run\`: put the real ones here.
SONZAI_SECRET=whsec_$(random)
SONZAI_SECRET_MESSAGE=whsec_$(random)
SONZAI_AUTH_HEADER="Bearer $(random)"
MIIBO_SECRET=$(random)
END
# In one step, so that a half-written file is never taken for the whole.
mv .env.new .env
echo "Wrote .env with random secrets."
