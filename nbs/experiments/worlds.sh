#!/usr/bin/env bash
# Make the worlds of the physics experiment: stores, statistics, record and ridges in data/NAME.
# What is there stays. Two minutes and 0.6 GB a world on one core. Usage: worlds.sh [NAME ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
aqnet=${AQNET:-aqnet}

# name and switches of `aqnet data twin --manifest carried`; the sealed worlds were opened last
worlds='carried
carried-still --transport 0
carried-open --blocking 0
carried-040 --transport 0.4
carried-070 --transport 0.7
carried-wind --written-wind-seed 99
carried-flat --written-terrain flat
carried-1 --terrain-seed 1 --emission-seed 1 --weather-seed 1
carried-2 --terrain-seed 2 --emission-seed 2 --weather-seed 2
carried-3 --terrain-seed 3 --emission-seed 3 --weather-seed 3
carried-1-64x128 --grid china_64x128 --terrain-seed 1 --emission-seed 1 --weather-seed 1'

make_world() {
  local name=$1 folder=data/$1 manifest=data/$1/$1.yaml
  shift
  if [ -e "$folder/ridges.safetensors" ] && [ -e "$manifest" ]; then
    printf '%s is there\n' "$folder"
    return
  fi
  if [ "$name" = carried ]; then
    "$aqnet" data twin --manifest carried --years 2013-2015 --out "$folder"
    if ! "$aqnet" data check carried --store "$folder"; then
      printf '%s\n' "$folder is not what data_manifests/carried.record.yaml has, see above. On another processor" \
        "the last bits differ: then its runs can be compared with each other. On the same one: delete and repeat."
    fi
    cp data_manifests/carried.yaml "$manifest"
  else
    "$aqnet" data twin --manifest carried --name "$name" "$@" --years 2013-2015 --out "$folder"
  fi
  "$aqnet" data stats "$manifest" --folder "$folder"
  # what is recorded stays: other stores than these are then refused, with the difference
  if [ ! -e "${manifest%.yaml}.record.yaml" ]; then
    "$aqnet" data record "$manifest" --store "$folder"
  fi
  "$aqnet" terrain build --manifest "$manifest" --folder "$folder" --file "$folder/ridges.safetensors"
}

# orders of the patches for the scans, the same in all worlds
for active in china all; do
  "$aqnet" wind-scan build --grid china_32x64 --regions 8 16 --active "$active"
done

known=$(printf '%s\n' "$worlds" | cut -d' ' -f1)
for name in "${@:-$known}"; do
  for one in $name; do
    line=$(printf '%s\n' "$worlds" | awk -v name="$one" '$1 == name') || true
    if [ -z "$line" ]; then
      printf 'error: no world %s; known: %s\n' "$one" "$(printf '%s' "$known" | tr '\n' ' ')" >&2
      exit 2
    fi
    # shellcheck disable=SC2086  # the switches are words of the table above
    make_world $line
  done
done
