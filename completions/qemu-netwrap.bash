# Completion of qemu-netwrap, and of aliases for it, in bash. Needs bash-completion.

# What may follow in a command line, by the words of the command so far: sets the words that can
# come next, the options, those with a value (--NAME:KIND), and the kinds of arguments.
# begin generated table: by tools/generate.py, from qemu_netwrap/cli/options.py
_qemu_netwrap_netdevs='nat host-only tap bridge user none nat,hostfwd= tap,network= tap,br= bridge,br= sriov,pf='

_qemu_netwrap_table()
{
    subcommands='' flags='--help' valued='' kinds=''
    case "$1" in
        '')
            subcommands='plan ps stop wait exec gc network config doctor help ifup ifdown hooks shim vfio'
            flags='-- --network --config --run-as --keep-env --yes-uplink --bind-group --force-uplink --quiet --verbose --debug --version --help'
            valued='--network:network --config:toml --run-as:user --keep-env:variable'
            kinds='qemu'
            ;;
        'network')
            subcommands='list show up down'
            ;;
        'config')
            subcommands='check show'
            ;;
        'hooks')
            subcommands='install remove status'
            ;;
        'shim')
            subcommands='install remove'
            ;;
        'vfio')
            subcommands='list bind unbind'
            ;;
        'plan')
            flags='-- --json --help'
            kinds='qemu'
            ;;
        'ps')
            flags='--all --json --help'
            ;;
        'stop')
            flags='--timeout --help'
            valued='--timeout:seconds'
            kinds='run...'
            ;;
        'wait')
            kinds='run...'
            ;;
        'exec')
            flags='-- --help'
            kinds='network command...'
            ;;
        'gc')
            ;;
        'network list')
            flags='--json --help'
            ;;
        'network show')
            flags='--json --help'
            kinds='network'
            ;;
        'network up')
            kinds='network'
            ;;
        'network down')
            kinds='network'
            ;;
        'config check')
            kinds='file'
            ;;
        'config show')
            flags='--json --help'
            ;;
        'doctor')
            flags='--json --help'
            ;;
        'ifup')
            kinds='tap'
            ;;
        'ifdown')
            kinds='tap'
            ;;
        'hooks install')
            flags='--root --help'
            valued='--root:folder'
            ;;
        'hooks remove')
            flags='--root --help'
            valued='--root:folder'
            ;;
        'hooks status')
            flags='--root --json --help'
            valued='--root:folder'
            ;;
        'shim install')
            kinds='folder program...'
            ;;
        'shim remove')
            kinds='folder'
            ;;
        'vfio list')
            flags='--json --help'
            ;;
        'vfio bind')
            kinds='device'
            ;;
        'vfio unbind')
            kinds='device'
            ;;
        'help')
            subcommands='plan ps stop wait exec gc network config doctor ifup ifdown hooks shim vfio'
            ;;
        'help network')
            subcommands='list show up down'
            flags=''
            ;;
        'help config')
            subcommands='check show'
            flags=''
            ;;
        'help hooks')
            subcommands='install remove status'
            flags=''
            ;;
        'help shim')
            subcommands='install remove'
            flags=''
            ;;
        'help vfio')
            subcommands='list bind unbind'
            flags=''
            ;;
    esac
}
# end generated

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
        offered=$_qemu_netwrap_netdevs
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

# Offer what is of a kind of value or argument.
_qemu_netwrap_kind()
{
    case $1 in
        network) COMPREPLY=($(compgen -W "$(_qemu_netwrap_networks)" -- "$cur")) ;;
        run) COMPREPLY=($(compgen -W "$(_qemu_netwrap_runs)" -- "$cur")) ;;
        tap) COMPREPLY=($(compgen -W "$(_qemu_netwrap_taps)" -- "$cur")) ;;
        device) COMPREPLY=($(compgen -W "$(_qemu_netwrap_devices)" -- "$cur")) ;;
        file) _filedir ;;
        toml) _filedir toml ;;
        folder) _filedir -d ;;
        user) COMPREPLY=($(compgen -u -- "$cur")) ;;
        variable) COMPREPLY=($(compgen -e -- "$cur")) ;;
        command)
            COMPREPLY=($(compgen -c -- "$cur"))
            [[ $cur == */* ]] && _filedir
            ;;
        program | qemu)
            COMPREPLY=($(compgen -c -- "${cur:-qemu-system-}" | grep -E '^(qemu|kvm)'))
            [[ $cur == */* ]] && _filedir
            ;;
    esac
}

_qemu_netwrap()
{
    local cur prev words cword at=1 word typed='' given=0 dashes=''
    local subcommands flags valued kinds
    if [[ ${BASH_ALIASES[$1]-} == *qemu-netwrap* ]]; then
        # The alias's words in its place, without what stands before qemu-netwrap.
        local expanded=${BASH_ALIASES[$1]}
        local -a alias=(qemu-netwrap ${expanded#*qemu-netwrap})
        ((COMP_CWORD += ${#alias[@]} - 1))
        COMP_WORDS=("${alias[@]}" "${COMP_WORDS[@]:1}")
        COMP_LINE="${alias[*]}${COMP_LINE#"$1"}"
        COMP_POINT=${#COMP_LINE}
    fi
    _init_completion -n =: || return
    _qemu_netwrap_table ''
    while ((at < cword)); do
        word=${words[at]}
        if [[ -z $dashes && $word == -* ]]; then
            [[ $word != -- ]] || dashes=1
            [[ " $valued" != *" $word:"* ]] || ((at += 1))
        elif [[ -z $dashes && " $subcommands " == *" $word "* ]]; then
            typed=${typed:+$typed }$word
            _qemu_netwrap_table "$typed"
        elif [[ $kinds == qemu ]]; then
            _qemu_netwrap_qemu "$at"
            return
        elif [[ $kinds == *' command...' && $given == 1 ]]; then
            _command_offset "$at"
            return
        else
            ((given += 1))
        fi
        ((at += 1))
    done
    if ((at > cword)); then
        word=${valued#*"$prev":}
        _qemu_netwrap_kind "${word%% *}"
    elif [[ -z $dashes && $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    else
        # The last argument's kind goes on, if it can be repeated.
        kinds=($kinds)
        word=${kinds[given]-}
        [[ -n $word || ${kinds[*]: -1} != *... ]] || word=${kinds[*]: -1}
        _qemu_netwrap_kind "${word%...}"
        [[ -n $dashes ]] || COMPREPLY+=($(compgen -W "$subcommands" -- "$cur"))
    fi
}

complete -F _qemu_netwrap qemu-netwrap

# Aliases that are there when this file is read, as `alias qemu='qemu-netwrap -- …'`.
for _qemu_netwrap_alias in "${!BASH_ALIASES[@]}"; do
    [[ ${BASH_ALIASES[$_qemu_netwrap_alias]} != *qemu-netwrap* ]] ||
        complete -F _qemu_netwrap "$_qemu_netwrap_alias"
done
unset _qemu_netwrap_alias
