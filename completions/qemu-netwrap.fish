# Completion of qemu-netwrap in fish. `alias` makes it known for aliases too.

# What may follow in a command line, by the words of the command so far: sets the words that can
# come next, the options, those with a value (--NAME:KIND), and the kinds of arguments.
# begin generated table: by tools/generate.py, from qemu_netwrap/cli/options.py
set -g __qemu_netwrap_netdevs nat host-only tap bridge user none nat,hostfwd= tap,network= tap,br= bridge,br= sriov,pf=

function __qemu_netwrap_table
    set -g __qemu_netwrap_subcommands
    set -g __qemu_netwrap_flags --help
    set -g __qemu_netwrap_valued
    set -g __qemu_netwrap_kinds
    switch "$argv"
        case ''
            set __qemu_netwrap_subcommands plan ps stop wait exec gc network config doctor help ifup ifdown hooks shim vfio
            set __qemu_netwrap_flags -- --network --config --run-as --keep-env --yes-uplink --bind-group --force-uplink --quiet --verbose --debug --version --help
            set __qemu_netwrap_valued --network:network --config:toml --run-as:user --keep-env:variable
            set __qemu_netwrap_kinds qemu
        case 'network'
            set __qemu_netwrap_subcommands list show up down
        case 'config'
            set __qemu_netwrap_subcommands check show
        case 'hooks'
            set __qemu_netwrap_subcommands install remove status
        case 'shim'
            set __qemu_netwrap_subcommands install remove
        case 'vfio'
            set __qemu_netwrap_subcommands list bind unbind
        case 'plan'
            set __qemu_netwrap_flags -- --json --help
            set __qemu_netwrap_kinds qemu
        case 'ps'
            set __qemu_netwrap_flags --all --json --help
        case 'stop'
            set __qemu_netwrap_flags --timeout --help
            set __qemu_netwrap_valued --timeout:seconds
            set __qemu_netwrap_kinds run...
        case 'wait'
            set __qemu_netwrap_kinds run...
        case 'exec'
            set __qemu_netwrap_flags -- --help
            set __qemu_netwrap_kinds network command...
        case 'gc'
        case 'network list'
            set __qemu_netwrap_flags --json --help
        case 'network show'
            set __qemu_netwrap_flags --json --help
            set __qemu_netwrap_kinds network
        case 'network up'
            set __qemu_netwrap_kinds network
        case 'network down'
            set __qemu_netwrap_kinds network
        case 'config check'
            set __qemu_netwrap_kinds file
        case 'config show'
            set __qemu_netwrap_flags --json --help
        case 'doctor'
            set __qemu_netwrap_flags --json --help
        case 'ifup'
            set __qemu_netwrap_kinds tap
        case 'ifdown'
            set __qemu_netwrap_kinds tap
        case 'hooks install'
            set __qemu_netwrap_flags --root --help
            set __qemu_netwrap_valued --root:folder
        case 'hooks remove'
            set __qemu_netwrap_flags --root --help
            set __qemu_netwrap_valued --root:folder
        case 'hooks status'
            set __qemu_netwrap_flags --root --json --help
            set __qemu_netwrap_valued --root:folder
        case 'shim install'
            set __qemu_netwrap_kinds folder program...
        case 'shim remove'
            set __qemu_netwrap_kinds folder
        case 'vfio list'
            set __qemu_netwrap_flags --json --help
        case 'vfio bind'
            set __qemu_netwrap_kinds device
        case 'vfio unbind'
            set __qemu_netwrap_kinds device
        case 'help'
            set __qemu_netwrap_subcommands plan ps stop wait exec gc network config doctor ifup ifdown hooks shim vfio
        case 'help network'
            set __qemu_netwrap_subcommands list show up down
            set __qemu_netwrap_flags 
        case 'help config'
            set __qemu_netwrap_subcommands check show
            set __qemu_netwrap_flags 
        case 'help hooks'
            set __qemu_netwrap_subcommands install remove status
            set __qemu_netwrap_flags 
        case 'help shim'
            set __qemu_netwrap_subcommands install remove
            set __qemu_netwrap_flags 
        case 'help vfio'
            set __qemu_netwrap_subcommands list bind unbind
            set __qemu_netwrap_flags 
    end
end
# end generated

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
        string join \n $__qemu_netwrap_netdevs
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

# The taps there are, by their flags in sysfs.
function __qemu_netwrap_taps
    grep -ls . /sys/class/net/*/tun_flags | cut -d/ -f5
end

# Print what is of a kind of value or argument.
function __qemu_netwrap_kind
    switch "$argv"
        case network
            __qemu_netwrap_networks
        case run
            __qemu_netwrap_runs
        case tap
            __qemu_netwrap_taps
        case device
            __qemu_netwrap_devices
        case file toml
            __fish_complete_path (commandline -ct)
        case folder
            __fish_complete_directories (commandline -ct)
        case user
            __fish_complete_users
        case variable
            set -nx
        case command
            complete -C (commandline -ct)
        case program qemu
            __qemu_netwrap_programs
    end
end

function __qemu_netwrap
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l typed
    set -l given 1
    set -l dashes ''
    set -e words[1]
    __qemu_netwrap_table
    while set -q words[1]
        if test -z "$dashes"; and string match -q -- '-*' $words[1]
            test $words[1] != --; or set dashes --
            set -l name (string escape --style=regex -- $words[1])
            set -l kind (string replace -rf -- "^$name:" '' $__qemu_netwrap_valued)
            if test -n "$kind"
                if not set -q words[2]
                    __qemu_netwrap_kind $kind
                    return
                end
                set -e words[1]
            end
        else if test -z "$dashes"; and contains -- $words[1] $__qemu_netwrap_subcommands
            set -a typed $words[1]
            __qemu_netwrap_table $typed
        else if test "$__qemu_netwrap_kinds" = qemu
            __qemu_netwrap_qemu $words
            return
        else if test "$__qemu_netwrap_kinds[$given]" = command...
            complete -C "$(string join ' ' -- $words $cur)"
            return
        else
            set given (math $given + 1)
        end
        set -e words[1]
    end
    if test -z "$dashes"; and string match -q -- '-*' $cur
        string join \n -- $__qemu_netwrap_flags
        return
    end
    # The last argument's kind goes on, if it can be repeated.
    set -l kind $__qemu_netwrap_kinds[$given]
    if test -z "$kind"; and string match -q '*...' -- $__qemu_netwrap_kinds[-1]
        set kind $__qemu_netwrap_kinds[-1]
    end
    __qemu_netwrap_kind (string replace ... '' -- $kind)
    test -n "$dashes"; or string join \n -- $__qemu_netwrap_subcommands
end

complete -c qemu-netwrap -f -a '(__qemu_netwrap)'
