# bash drive.bash LINE: what bash offers at the end of LINE, one a line, by the installed file.
# Variables: SHARE, the wheel's share folder. Words are cut as readline cuts them.
. /usr/share/bash-completion/bash_completion
alias qemu='sudo qemu-netwrap --network nat -- qemu-system-x86_64'
. "$SHARE/bash-completion/completions/qemu-netwrap"

COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
mapfile -t COMP_WORDS < <(grep -oE '[=:]+|[^ =:]+' <<<"$1")
[[ $1 != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; } # of the completion that readline is doing, and here is none
complete -p "${COMP_WORDS[0]}" | grep -q _qemu_netwrap || exit
_qemu_netwrap "${COMP_WORDS[0]}" "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\n' "${COMPREPLY[@]}"
