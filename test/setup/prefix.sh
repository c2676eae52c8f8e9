#!/usr/bin/env bash
# prefix.sh: gets a PostgreSQL that the machine does not have, and keeps it in the cache.
#     prefix.sh deb 17|18   the binaries of a newer Debian release, as a private prefix: the packages
#                           unpacked side by side with their own C library, which patchelf makes them use
#     prefix.sh src 18      a build from source with assertions, debug symbols, valgrind hooks, pgindent
# Prints its pg_config as the last line.  Ends with 3 when it can neither be had nor was kept.
# Nothing of the system is changed but for missing Debian packages; apt works in a state of its own.
# shellcheck source=test/setup/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Raise this when what a prefix of kind deb holds changes: kept ones are made anew then.
LAYOUT=1
# A kept prefix is used for so many days before newer packages are looked for.
KEEP_DAYS=14

# Packages that a server needs nothing of although its dependencies name them.
NOT_NEEDED='^[^=]*(-dev|-perl|-bin)=|^postgresql[^=]*common|^lib(llvm|clang|z3|perl5|python3|gcc-[0-9]+-dev|stdc..-[0-9]+-dev|asan|tsan|ubsan|hwasan|lsan|cc1|gprofng|binutils|ctf|isl|mpc|mpfr|pam-(mod|run)|systemd-shared|obj|gc1|debconf|semanage|sframe|apt|db5)'

kind=${1:?deb or src} v=${2:?major version}
case $v in
    15) suite=bookworm ;;
    17) suite=trixie ;;
    18) suite=forky ;;
    *) die "prefix.sh: no release of Debian is known for PostgreSQL $v" ;;
esac

# use_private_apt points apt at the suite with a state of its own, its lists not older than a day.
use_private_apt() {
    local d=$ES_CACHE/apt/$suite mirror target
    # the mirror that this machine's own apt uses
    # shellcheck disable=SC2016  # apt expands these
    mirror=${EVENTSRC_MIRROR:-$(apt-get indextargets --format '$(SITE) $(RELEASE)' |
        awk '$2 ~ /^(bookworm|trixie|forky|stable|oldstable|testing)$/ { print $1; exit }')}
    [ -n "$mirror" ] || { say "apt knows no Debian mirror"; return 1; }
    mkdir -p "$d"/{etc/apt.conf.d,etc/preferences.d,etc/sources.list.d,state/lists/partial,cache/archives/partial,log}
    : >"$d/state/status"
    # an index whose Release file has expired is still good for a test
    cat >"$d/etc/sources.list.d/debian.sources" <<-END
	Types: deb deb-src
	URIs: $mirror
	Suites: $suite
	Components: main
	Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	Check-Valid-Until: no
	END
    {
        cat <<-END
		Dir::Etc "$d/etc"; Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "$d/etc/sources.list.d";
		Dir::State "$d/state"; Dir::State::status "$d/state/status"; Dir::Cache "$d/cache"; Dir::Log "$d/log";
		Acquire::Languages "none"; Acquire::Retries "2"; Acquire::http::Timeout "20"; Acquire::https::Timeout "20";
		END
        for target in DEP-11 DEP-11-icons DEP-11-icons-small Contents-deb; do
            echo "Acquire::IndexTargets::deb::$target::DefaultEnabled \"false\";"
        done
        [ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";'
    } >"$d/apt.conf"
    export APT_CONFIG=$d/apt.conf
    if [ -z "$(find "$d/updated" -mmin -1440 2>/dev/null)" ]; then
        # without Error-Mode a failed update still ends with 0
        apt-get -qq -o APT::Update::Error-Mode=any update >&2 || return 1
        touch "$d/updated"
    fi
}

# list_packages prints name=version of all that a server of the suite needs.
list_packages() {
    apt-get -s install --no-install-recommends "postgresql-$v" "postgresql-server-dev-$v" "postgresql-$v-pgtap" \
        librdkafka1 librabbitmq4 |
        sed -nE 's/^Inst ([^ :]+)[^ ]* \(([^ ]+) .*/\1=\2/p' | sort -u |
        grep -E '^(lib|tzdata=|postgresql-)' | grep -vE -- "$NOT_NEEDED"
    apt-cache policy "postgresql-server-dev-$v" | sed -nE "s/.*Candidate: (.*)/postgresql-server-dev-$v=\1/p"
}

# drop_unknown_flags removes from a Makefile.global the flags of a newer gcc than this one.
drop_unknown_flags() {
    local flag
    # shellcheck disable=SC2016  # a literal $
    grep -oE -- ' -[Wf][^ ]+' "$1" | grep -vE -- '-Wl,|[$()]' | sort -u | while read -r flag; do
        case $(echo | LC_ALL=C gcc "$flag" -xc -c -o /dev/null - 2>&1 || true) in
            *'unrecognized command-line option'*) sed -i "s# $flag\\b##g" "$1" ;;
        esac
    done
}

# deb_prefix makes or finds the prefix of kind deb and sets pg_config.
deb_prefix() {
    local t=$ES_CACHE/deb-$v names key p e f want=() lib loader
    pg_config=$t/usr/lib/postgresql/$v/bin/pg_config
    if [ -x "$pg_config" ] && [ -n "$(find "$t/.checked" -mtime -"$KEEP_DAYS" 2>/dev/null)" ]; then return 0; fi
    if ! use_private_apt || ! names=$(list_packages) || [ -z "$names" ]; then
        say "PostgreSQL $v: no package index of $suite"
        return 1
    fi
    key=$(printf '%s\n' "$names" "layout $LAYOUT" | sha256sum | cut -c1-16)
    if [ -x "$pg_config" ] && [ "$(cat "$t/.key" 2>/dev/null)" = "$key" ]; then touch "$t/.checked"; return 0; fi

    say "PostgreSQL $v: unpacking the binaries of $suite into $t"
    need_private_packages patchelf gcc libc6-dev
    mkdir -p "$t.debs"
    for p in $names; do
        e=${p#*=}
        [ -n "$(find "$t.debs" -name "${p%%=*}_${e//:/%3a}_*.deb")" ] || want+=("$p")
    done
    if [ ${#want[@]} -gt 0 ] && ! (cd "$t.debs" && apt-get -qq download "${want[@]}" >&2); then
        say "PostgreSQL $v: a package of $suite is gone from the mirror"
        return 1
    fi
    rm -rf "$t.new"
    mkdir -p "$t.new"/usr/{lib,bin,sbin,lib64}
    for p in bin sbin lib lib64; do ln -s "usr/$p" "$t.new/$p"; done
    for p in $names; do
        e=${p#*=}
        f=$(find "$t.debs" -name "${p%%=*}_${e//:/%3a}_*.deb")
        dpkg-deb --fsys-tarfile "$f" | tar -x -C "$t.new" --keep-directory-symlink --no-same-owner \
            --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale \
            --exclude='*llvmjit*' --exclude='*/bitcode/*'
    done
    rm -rf "$t"
    mv "$t.new" "$t"
    # an explicit loader would start postgres, but initdb and pg_regress start others: it goes into the ELF headers
    lib=$t/usr/lib/$(gcc -print-multiarch)
    loader=$lib/$(basename "$(patchelf --print-interpreter /bin/sh)")
    for f in "$t/usr/lib/postgresql/$v"/bin/* "$t/usr/lib/postgresql/$v"/lib/pgxs/src/test/*/*; do
        if [ -f "$f" ] && [ "$(head -c4 "$f" | tail -c3)" = ELF ]; then
            patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$lib" "$f"
        fi
    done
    drop_unknown_flags "$t/usr/lib/postgresql/$v/lib/pgxs/src/Makefile.global"
    chmod -R a+rX "$t"
    "$t/usr/lib/postgresql/$v/bin/postgres" --version >&2
    echo "$key" >"$t/.key"
    touch "$t/.checked"
}

# need_private_packages is need_packages with the system's own apt, even after use_private_apt.
need_private_packages() { (unset APT_CONFIG; need_packages "$@"); }

# src_key prints what a source build depends on, as a short hash.
src_key() { { sha256sum <"$1"; echo "$2"; gcc --version; } | sha256sum | cut -c1-16; }

# src_prefix makes or finds the build from source and sets pg_config.
src_prefix() {
    local tar t w cc=gcc args='--enable-cassert --enable-debug --enable-tap-tests --with-icu --with-openssl --with-lz4'
    need_packages gcc
    mkdir -p "$ES_CACHE/tar"
    find_tar() { find "$ES_CACHE/tar" -name "postgresql-${v}_*.orig.tar.bz2" | sort -V | tail -n 1; }
    tar=$(find_tar)
    if [ -z "$tar" ]; then
        say "PostgreSQL $v: fetching the source of $suite"
        need_packages dpkg-dev
        use_private_apt || { say "PostgreSQL $v: no package index of $suite"; return 1; }
        (cd "$ES_CACHE/tar" && apt-get -qq source --download-only --tar-only "postgresql-$v" >&2) ||
            { say "PostgreSQL $v: the source is gone from the mirror"; return 1; }
        tar=$(find_tar)
    fi
    t=$ES_CACHE/src-$v-$(src_key "$tar" "$args")/postgresql
    pg_config=$t/bin/pg_config
    if [ ! -e "$t/.done" ]; then
        say "PostgreSQL $v: building from source with assertions; this takes some minutes, once"
        need_private_packages gcc make libc6-dev bison flex perl ccache valgrind bzip2 \
            libreadline-dev zlib1g-dev libicu-dev libssl-dev liblz4-dev pkg-config libipc-run-perl
        w=$ES_CACHE/build-$v
        rm -rf "$w" "$t"
        mkdir -p "$w"
        tar -xf "$tar" -C "$w" --strip-components=1
        export CCACHE_DIR=$ES_CACHE/ccache
        command -v ccache >/dev/null && cc='ccache gcc'
        (
            cd "$w"
            # shellcheck disable=SC2086  # args are words
            ./configure --prefix="$t" $args CC="$cc" CFLAGS='-O1 -g -fno-omit-frame-pointer' CPPFLAGS=-DUSE_VALGRIND
            make -s -j"$(nproc)"
            make -s install
            make -s -C src/test/isolation install
            make -s -C src/test/regress install
            make -s -C src/tools/pg_bsd_indent
            mkdir -p "$t/share/tools"
            cp src/tools/valgrind.supp src/tools/pg_bsd_indent/pg_bsd_indent src/tools/pgindent/pgindent \
                src/tools/pgindent/typedefs.list "$t/share/tools/"
            sed -i 's/ccache gcc/gcc/' "$t/lib/pgxs/src/Makefile.global"
        ) >"$w.log" 2>&1
        cd "$ES_CACHE"
        rm -rf "$w"
        chmod -R a+rX "$t/.."
        touch "$t/.done"
    fi
    # pgTAP is plain SQL: the package of the suite serves
    if [ ! -e "$t/share/extension/pgtap.control" ]; then
        if [ ! -d "$ES_CACHE/deb-$v" ]; then
            use_private_apt
            (mkdir -p "$ES_CACHE/pgtap-$v" && cd "$ES_CACHE/pgtap-$v" && apt-get -qq download "postgresql-$v-pgtap" >&2 &&
                dpkg-deb -x ./*.deb .)
        fi
        cp "$ES_CACHE"/{deb,pgtap}-"$v/usr/share/postgresql/$v/extension"/pgtap* "$t/share/extension/" 2>/dev/null || true
        [ -e "$t/share/extension/pgtap.control" ]
    fi
}

# kept_prefix prints the pg_config of what an earlier run kept.
kept_prefix() {
    case $kind in
        deb) find "$ES_CACHE/deb-$v/usr/lib/postgresql/$v/bin" -name pg_config 2>/dev/null ;;
        src) find "$ES_CACHE" -maxdepth 3 -path "*/src-$v-*/postgresql/.done" -printf '%h/bin/pg_config\n' | tail -n 1 ;;
    esac
}

# get_prefix makes the prefix in a process of its own, where any error ends it, or falls back to the kept one.
get_prefix() {
    local pg_config
    if ! pg_config=$(PREFIX_MAKE=1 bash "${BASH_SOURCE[0]}" "$kind" "$v"); then
        [ ! -s "$ES_CACHE/build-$v.log" ] || [ "$kind" != src ] || tail -n 40 "$ES_CACHE/build-$v.log" >&2
        pg_config=$(kept_prefix || true)
        [ -n "$pg_config" ] || exit 3
        say "PostgreSQL $v: going on with the kept $("$pg_config" --version)"
    fi
    echo "$pg_config"
}

case $kind in
    deb | src) ;;
    *) die "prefix.sh: deb or src, not $kind" ;;
esac
if [ -n "${PREFIX_MAKE:-}" ]; then
    "${kind}_prefix"
    echo "$pg_config"
else
    with_cache_lock get_prefix
fi
