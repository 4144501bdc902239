# Completion of qemu-netwrap, and of aliases for it, in bash. Needs bash-completion.

_qemu_netwrap_commands='plan ps stop wait gc network config doctor ifup ifdown hooks shim vfio'
_qemu_netwrap_options='--network --config --run-as --keep-env --yes-uplink --bind-group --force-uplink --quiet --verbose --debug --version --help'

_qemu_netwrap_networks()
{
    qemu-netwrap network list 2>/dev/null | awk 'NR > 1 { sub(/\*$/, "", $1); print $1 }'
}

# Runs, and their guests' names; for root.
_qemu_netwrap_runs()
{
    qemu-netwrap ps 2>/dev/null | awk '
        NR == 1 && $1 != "RUN" || /^$/ { exit }
        NR > 1 && /^[^ ]/ { print $1; if ($2 != "-") print $2 }'
}

# The taps there are, by their flags in sysfs.
_qemu_netwrap_taps()
{
    grep -ls . /sys/class/net/*/tun_flags | cut -d/ -f5
}

# NICs that could be passed through, or are.
_qemu_netwrap_devices()
{
    qemu-netwrap vfio list 2>/dev/null | awk 'NR > 1 { print $1 }'
}

# Prints what QEMU $1 says to -help; root asks only a QEMU that nobody else could have changed.
_qemu_netwrap_ask='
    qemu=$(readlink -f -- "$1") || exit
    at=$qemu
    while [ "$(id -u)" = 0 ] && [ -n "$at" ]; do
        [ -z "$(find "$at" -maxdepth 0 \( ! -user root -o -perm /022 ! -perm -1000 \))" ] || exit
        at=${at%/*}
    done
    timeout 5 "$qemu" -help 2>/dev/null </dev/null | head -c 1000000'

# The options of QEMU $1, from its -help, which is asked again when QEMU has changed.
_qemu_netwrap_qemu_options()
{
    local qemu cache
    qemu=$(type -P -- "$1") || return
    case ${qemu##*/} in qemu* | kvm) ;; *) return ;; esac
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/qemu-netwrap/${qemu//\//%}
    if [[ ! $cache -nt $qemu || ! -s $cache ]]; then
        mkdir -p "${cache%/*}" && sh -c "$_qemu_netwrap_ask" ask "$qemu" |
            sed -n 's/^\(-[^ ]*\)\( or \(-[^ ]*\)\)\{0,1\}.*/\1 \3/p' | tr '/ ' '\n\n' | sort -u >"$cache"
    fi
    cat "$cache"
}

# Offer $1, the current word being ELEMENT,KEY=VALUE: readline replaces what is behind the `=`.
_qemu_netwrap_offer()
{
    COMPREPLY+=($(compgen -W "$1" -- "$cur"))
    if [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*=}"}"}")
    fi
}

# Words behind QEMU, which is words[$1].
_qemu_netwrap_qemu()
{
    local qemu=${words[$1]} name offered
    if [[ $prev == -nic || $prev == -netdev || $prev == -net ]]; then
        offered='nat host-only tap bridge user none nat,hostfwd= tap,network= tap,br= bridge,br= sriov,pf='
        [[ $cur == *,network=* ]] &&
            for name in $(_qemu_netwrap_networks); do offered+=" ${cur%=*}=$name"; done
        compopt -o nospace
        _qemu_netwrap_offer "$offered"
        return
    fi
    declare -F _completion_loader >/dev/null && _completion_loader "$qemu"
    if complete -p "$qemu" 2>/dev/null | grep -qv -e _minimal -e _qemu_netwrap; then
        _command_offset "$1"
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$(_qemu_netwrap_qemu_options "$qemu")" -- "$cur"))
    else
        _filedir
    fi
}

_qemu_netwrap()
{
    local cur prev words cword at=1 command
    if [[ ${BASH_ALIASES[$1]-} == *qemu-netwrap* ]]; then
        # The alias's words in its place, without what stands before qemu-netwrap.
        local expanded=${BASH_ALIASES[$1]}
        local -a typed=(qemu-netwrap ${expanded#*qemu-netwrap})
        ((COMP_CWORD += ${#typed[@]} - 1))
        COMP_WORDS=("${typed[@]}" "${COMP_WORDS[@]:1}")
        COMP_LINE="${typed[*]}${COMP_LINE#"$1"}"
        COMP_POINT=${#COMP_LINE}
    fi
    _init_completion -n =: || return
    while ((at < cword)); do
        case ${words[at]} in
            --network | --config | --run-as | --keep-env) ((at += 2)) ;;
            --) ((at += 1)); break ;;
            -*) ((at += 1)) ;;
            *) break ;;
        esac
    done
    command=${words[at]}
    if ((at > cword)); then
        case $prev in
            --network) COMPREPLY=($(compgen -W "$(_qemu_netwrap_networks)" -- "$cur")) ;;
            --config) _filedir toml ;;
            --run-as) COMPREPLY=($(compgen -u -- "$cur")) ;;
            --keep-env) COMPREPLY=($(compgen -e -- "$cur")) ;;
        esac
        return
    elif ((at == cword)); then
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "-- $_qemu_netwrap_options" -- "$cur"))
        else
            COMPREPLY=($(compgen -c -- "${cur:-qemu-system-}" | grep -E '^(qemu|kvm)'))
            [[ $prev == -- ]] || COMPREPLY+=($(compgen -W "$_qemu_netwrap_commands" -- "$cur"))
            [[ $cur == */* ]] && _filedir
        fi
        return
    elif [[ ${words[at - 1]} == -- || " $_qemu_netwrap_commands " != *" $command "* ]]; then
        _qemu_netwrap_qemu "$at"
        return
    fi
    case $command/$prev in
        plan/*)
            ((at += 1))
            while ((at < cword)) && [[ ${words[at]} == --* ]]; do ((at += 1)); done
            if ((at < cword)); then
                _qemu_netwrap_qemu "$at"
            elif [[ $cur == -* ]]; then
                COMPREPLY=($(compgen -W '-- --json' -- "$cur"))
            else
                COMPREPLY=($(compgen -c -- "${cur:-qemu-system-}" | grep -E '^(qemu|kvm)'))
            fi
            return
            ;;
        stop/--timeout) return ;;
        network/network) COMPREPLY=($(compgen -W 'list show up down' -- "$cur")) ;;
        config/config) COMPREPLY=($(compgen -W 'check show' -- "$cur")) ;;
        config/check) _filedir ;;
        hooks/hooks) COMPREPLY=($(compgen -W 'install remove status' -- "$cur")) ;;
        hooks/--root) _filedir -d ;;
        vfio/vfio) COMPREPLY=($(compgen -W 'list bind unbind' -- "$cur")) ;;
        shim/shim) COMPREPLY=($(compgen -W 'install remove' -- "$cur")) ;;
        */-*) ;;
        ifup/ifup | ifdown/ifdown) COMPREPLY=($(compgen -W "$(_qemu_netwrap_taps)" -- "$cur")) ;;
        shim/install | shim/remove) _filedir -d ;;
        vfio/bind | vfio/unbind) COMPREPLY=($(compgen -W "$(_qemu_netwrap_devices)" -- "$cur")) ;;
        network/show | network/up | network/down)
            COMPREPLY=($(compgen -W "$(_qemu_netwrap_networks)" -- "$cur"))
            ;;
        stop/* | wait/*) COMPREPLY=($(compgen -W "$(_qemu_netwrap_runs)" -- "$cur")) ;;
    esac
    if [[ $cur == -* ]]; then
        case $command/${words[at + 1]} in
            ps/* | doctor/* | network/list | network/show | config/show | vfio/list) COMPREPLY=(--json) ;;
            hooks/status) COMPREPLY=(--root --json) ;;
            hooks/install | hooks/remove) COMPREPLY=(--root) ;;
            stop/*) COMPREPLY=(--timeout) ;;
        esac
        COMPREPLY=($(compgen -W "${COMPREPLY[*]} --help" -- "$cur"))
    fi
}

complete -F _qemu_netwrap qemu-netwrap

# Aliases that are there when this file is read, as `alias qemu='qemu-netwrap -- …'`.
for _qemu_netwrap_alias in "${!BASH_ALIASES[@]}"; do
    [[ ${BASH_ALIASES[$_qemu_netwrap_alias]} != *qemu-netwrap* ]] ||
        complete -F _qemu_netwrap "$_qemu_netwrap_alias"
done
unset _qemu_netwrap_alias
