#!/bin/sh
# Compiler launcher of the kernels: fails when ptxas had to serialise wgmma. It says so in a remark only, which
# --warning-as-error does not turn into an error.
report=$(mktemp)
"$@" 2>"$report"
status=$?
cat "$report" >&2
if grep -q 'wgmma.mma_async instructions are serialized' "$report"; then
  echo "error: a kernel's wgmma instructions are serialised (see above)" >&2
  status=1
  previous=""
  for argument in "$@"; do
    [ "$previous" = -o ] && rm -f "$argument"
    previous=$argument
  done
fi
rm -f "$report"
exit $status
