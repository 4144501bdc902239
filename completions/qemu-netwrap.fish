# Completion of qemu-netwrap in fish. `alias` makes it known for aliases too.

set -g __qemu_netwrap_commands plan ps stop wait gc network config doctor ifup ifdown hooks shim vfio
set -g __qemu_netwrap_options --network --config --run-as --keep-env --yes-uplink --bind-group --force-uplink --quiet --verbose --debug --version --help

function __qemu_netwrap_networks
    qemu-netwrap network list 2>/dev/null | awk 'NR > 1 { sub(/\*$/, "", $1); print $1 }'
end

# Runs, and their guests' names; for root.
function __qemu_netwrap_runs
    qemu-netwrap ps 2>/dev/null | awk '
        NR == 1 && $1 != "RUN" || /^$/ { exit }
        NR > 1 && /^[^ ]/ { print $1; if ($2 != "-") print $2 }'
end

# NICs that could be passed through, or are.
function __qemu_netwrap_devices
    qemu-netwrap vfio list 2>/dev/null | awk 'NR > 1 { print $1 }'
end

# Prints what QEMU $1 says to -help; root asks only a QEMU that nobody else could have changed.
set -g __qemu_netwrap_ask '
    qemu=$(readlink -f -- "$1") || exit
    at=$qemu
    while [ "$(id -u)" = 0 ] && [ -n "$at" ]; do
        [ -z "$(find "$at" -maxdepth 0 \( ! -user root -o -perm /022 ! -perm -1000 \))" ] || exit
        at=${at%/*}
    done
    timeout 5 "$qemu" -help 2>/dev/null </dev/null | head -c 1000000'

# The options of QEMU $argv, from its -help, which is asked again when QEMU has changed.
function __qemu_netwrap_qemu_options
    set -l qemu (command -s -- $argv); or return
    string match -qr '/(qemu[^/]*|kvm)$' -- $qemu; or return
    set -l folder $HOME/.cache
    set -q XDG_CACHE_HOME; and set folder $XDG_CACHE_HOME
    set -l cache $folder/qemu-netwrap/(string replace -a / % -- $qemu)
    if not test -s $cache -a $cache -nt $qemu
        mkdir -p $folder/qemu-netwrap; and sh -c $__qemu_netwrap_ask ask $qemu |
            sed -n 's/^\(-[^ ]*\)\( or \(-[^ ]*\)\)\{0,1\}.*/\1 \3/p' | tr '/ ' '\n\n' | sort -u >$cache
    end
    cat $cache
end

function __qemu_netwrap_programs
    complete -C qemu-system- | string replace -r '\t.*' ''
    set -l cur (commandline -ct)
    string match -q '*/*' -- $cur; and __fish_complete_path $cur
end

# What is behind QEMU: the words $argv, QEMU the first.
function __qemu_netwrap_qemu
    set -l cur (commandline -ct)
    if contains -- $argv[-1] -nic -netdev -net
        string split ' ' 'nat host-only tap bridge user none nat,hostfwd= tap,network= tap,br= bridge,br= sriov,pf='
        if string match -q -- '*,network=*' $cur
            string replace -r '^' (string replace -r '=[^=]*$' '=' -- $cur) (__qemu_netwrap_networks)
        end
    else if test -n "$(complete -c $argv[1])"
        complete -C "$(string join ' ' -- $argv $cur)"
    else if string match -q -- '-*' $cur
        __qemu_netwrap_qemu_options $argv[1]
    else
        __fish_complete_path $cur
    end
end

function __qemu_netwrap
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -e words[1]
    set -l last ''
    while set -q words[1]
        switch $words[1]
            case --network --config --run-as --keep-env
                if not set -q words[2]
                    switch $words[1]
                        case --network
                            __qemu_netwrap_networks
                        case --config
                            __fish_complete_path $cur
                        case --run-as
                            __fish_complete_users
                        case --keep-env
                            set -nx
                    end
                    return
                end
                set -e words[1..2]
            case --
                set last --
                set -e words[1]
                break
            case '-*'
                set -e words[1]
            case '*'
                break
        end
    end
    if not set -q words[1]
        if string match -q -- '-*' $cur
            string join \n -- -- $__qemu_netwrap_options
        else
            __qemu_netwrap_programs
            test "$last" = --; or string join \n $__qemu_netwrap_commands
        end
    else if test "$last" = --; or not contains -- $words[1] $__qemu_netwrap_commands
        __qemu_netwrap_qemu $words
    else
        __qemu_netwrap_command $words
    end
end

# What is behind a command of ours: the words $argv, the command the first.
function __qemu_netwrap_command
    set -l cur (commandline -ct)
    switch $argv[1]/$argv[-1]
        case 'plan/*'
            set -e argv[1]
            while string match -q -- '--*' $argv[1]
                set -e argv[1]
            end
            if set -q argv[1]
                __qemu_netwrap_qemu $argv
            else if string match -q -- '-*' $cur
                string join \n -- -- --json --help
            else
                __qemu_netwrap_programs
            end
            return
        case stop/--timeout
            return
        case network/network
            string join \n list show up down
        case config/config
            string join \n check show
        case config/check
            __fish_complete_path $cur
        case hooks/hooks
            string join \n install remove status
        case vfio/vfio
            string join \n list bind unbind
        case vfio/bind vfio/unbind
            __qemu_netwrap_devices
        case shim/shim
            string join \n install remove
        case hooks/--root shim/install shim/remove
            __fish_complete_directories $cur
        case ifup/ifup ifdown/ifdown
            grep -ls . /sys/class/net/*/tun_flags | cut -d/ -f5
        case network/show network/up network/down
            __qemu_netwrap_networks
        case 'stop/*' 'wait/*'
            __qemu_netwrap_runs
    end
    if string match -q -- '-*' $cur
        set -q argv[2]; or set -a argv ''
        switch $argv[1]/$argv[2]
            case 'ps/*' 'doctor/*' network/list network/show config/show vfio/list
                echo --json
            case hooks/status
                string join \n -- --root --json
            case hooks/install hooks/remove
                echo --root
            case 'stop/*'
                echo --timeout
        end
        echo --help
    end
end

complete -c qemu-netwrap -f -a '(__qemu_netwrap)'
