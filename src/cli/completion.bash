# what `iron … -q` names, one a line; a server that is slow is not waited for
_iron_ask() {
	IRON_API_TIMEOUT=2 iron "$@" -q 2>/dev/null </dev/null
}

# completions of $cur as a kind: VM, IMAGE, a|b|c …
_iron_kind() {
	local kind=${1%…} IFS=$'\n'
	case $kind in
	VM) COMPREPLY=($(compgen -W "$(_iron_ask list)" -- "$cur")) ;;
	IMAGE) COMPREPLY=($(compgen -W "$(_iron_ask image list)" -- "$cur")) ;;
	KEY) COMPREPLY=($(compgen -W "$(_iron_ask keys list)" -- "$cur")) ;;
	RULE) COMPREPLY=($(compgen -W "$(_iron_ask egress list)" -- "$cur")) ;;
	PRESET) COMPREPLY=($(compgen -W "$(_iron_ask egress preset list)" -- "$cur")) ;;
	EXEC) COMPREPLY=($(compgen -W "$(_iron_ask ps "$vm")" -- "$cur")) ;;
	SRC | DST)
		local vms=()
		[[ $cur == */* || $cur == *:* ]] || vms=($(compgen -S : -W "$(_iron_ask list)" -- "$cur"))
		COMPREPLY=($(compgen -f -- "$cur"))
		# a name that is completed as a file's gets its colon escaped
		if ((${#vms[@]})); then compopt -o nospace; else compopt -o filenames; fi
		COMPREPLY+=("${vms[@]}") ;;
	FILE | PATH) compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur")) ;;
	DIR) compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur")) ;;
	COMMAND) IFS=' '; COMPREPLY=($(compgen -W "$_iron_words" -- "$cur")) ;;
	*\|*) IFS='|'; COMPREPLY=($(IFS=$' \t\n' compgen -W "${kind//|/ }" -- "$cur" | tr '\n' '|')) ;;
	esac
}

_iron() {
	local line=${COMP_LINE:0:COMP_POINT} cur prev command vm="" used=2 i w at=0 options="" values="" kinds="" value="" one
	local -a words
	COMPREPLY=()
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	local n=$((${#words[@]} - 1))
	cur=${words[n]} prev=${words[n - 1]}
	if ((n == 1)); then
		COMPREPLY=($(compgen -W "$_iron_words --help --version" -- "$cur"))
		return
	fi
	command=${words[1]}
	if ! _iron_spec "$command"; then
		if ((n == 2)); then
			COMPREPLY=($(compgen -W "$(_iron_second "$command")" -- "$cur"))
			return
		fi
		command+=" ${words[2]}" used=3
		_iron_spec "$command" || return
	fi
	for ((i = used; i < n; i++)); do
		w=${words[i]}
		case $w in
		--) return ;;
		--*=*) ;;
		-?*) [[ "$values " == *" $w="* ]] && ((i++)) ;;
		*) ((at == 0)) && vm=$w; ((at++)) ;;
		esac
	done
	if [[ $cur == --*=* ]]; then
		prev=${cur%%=*} cur=${cur#*=}
	elif ((i > n)) || [[ $prev == -* && "$values " == *" $prev="* ]]; then
		:
	elif [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$options" -- "$cur"))
		return
	else
		prev=""
	fi
	if [[ $prev ]]; then
		for one in $values; do
			[[ $one == "$prev="* ]] && value=${one#*=}
		done
		_iron_kind "$value"
	else
		i=0
		for one in $kinds; do
			if ((i == at)) || [[ $one == *… ]]; then
				_iron_kind "$one"
				break
			fi
			((i++))
		done
	fi
	# readline has split the word at each colon: it wants what follows the last one
	if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
		local before=${cur%"${cur##*:}"}
		for i in "${!COMPREPLY[@]}"; do
			COMPREPLY[i]=${COMPREPLY[i]#"$before"}
		done
	fi
}
complete -F _iron iron
