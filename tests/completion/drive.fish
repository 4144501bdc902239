# fish -N drive.fish LINE: what fish offers at the end of LINE, one a line, by the installed file.
# Variables: SHARE, the wheel's share folder.
set -p fish_complete_path $SHARE/fish/vendor_completions.d
alias qemu='qemu-netwrap --network nat -- qemu-system-x86_64'
complete -C "$argv[1]" | string replace -r '\t.*' ''
true # whether something was offered or not
