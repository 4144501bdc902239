# zsh -f drive.zsh LINE: what zsh offers at the end of LINE, one a line, by the installed file.
# Variables: SHARE, the wheel's share folder; OUT, a folder for scratch files.
zmodload zsh/zpty
cat >$OUT/rc <<'END'
fpath=($SHARE/zsh/site-functions $fpath)
autoload -Uz compinit
compinit -u -d $OUT/dump
alias qemu='qemu-netwrap --network nat -- qemu-system-x86_64'
compadd() {
    # What the completion itself only asks for is not offered.
    local -a offered
    if [[ " ${@[1,(i)--]} " != *' -'[OAD]' '* ]]; then
        builtin compadd -A offered "$@"
        print -rl -- $offered >>$OUT/offered
    fi
    builtin compadd "$@"
}
finished() { : >$OUT/finished }
comppostfuncs=(finished)
PS1='> '
: >$OUT/ready
END
wait_for() {
    repeat 3000; do
        [[ -e $1 ]] && return
        sleep 0.02
    done
    exit 1
}
zpty child zsh -f -i
zpty -w child ". $OUT/rc"
wait_for $OUT/ready
zpty -w -n child "$1"$'\t'
wait_for $OUT/finished
zpty -d child
cat $OUT/offered 2>/dev/null || true
