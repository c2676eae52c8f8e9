# Appends of events whose data is checked by a JSON Schema, beside those of a type that is not registered.
# shellcheck shell=bash
for c in 1 4; do
    compare "append of 300 B checked by a JSON Schema, c=$c" "$c" 1 checked.sql 'unchecked_bare.sql >=0.87 without a schema'
done
