# what `iron … -q` names, one a line; a server that is slow is not waited for
_iron_ask() {
	names=(${(f)"$(IRON_API_TIMEOUT=2 iron "$@" -q 2>/dev/null </dev/null)"})
}

_iron_kind() {
	local -a names
	local kind=${1%…}
	case $kind in
	VM) _iron_ask list; compadd -a names ;;
	IMAGE) _iron_ask image list; compadd -a names ;;
	KEY) _iron_ask keys list; compadd -a names ;;
	RULE) _iron_ask egress list; compadd -a names ;;
	PRESET) _iron_ask egress preset list; compadd -a names ;;
	EXEC) _iron_ask ps "$vm"; compadd -a names ;;
	SRC|DST) _iron_ask list; compadd -S : -a names; _files ;;
	FILE|PATH) _files ;;
	DIR) _files -/ ;;
	COMMAND) _describe command _iron_words ;;
	*\|*) names=(${(s:|:)kind}); compadd -a names ;;
	esac
}

_iron() {
	local command vm="" value="" values="" kinds="" w one
	local -a options seconds
	local -i used=3 i at=0
	if (( CURRENT == 2 )); then
		_describe command _iron_words
		return
	fi
	command=$words[2]
	if ! _iron_spec "$command"; then
		if (( CURRENT == 3 )); then
			_iron_second "$command" && _describe command seconds
			return
		fi
		command+=" $words[3]"
		used=4
		_iron_spec "$command" || return 1
	fi
	for (( i = used; i < CURRENT; i++ )); do
		w=$words[i]
		case $w in
		--) return 1 ;;
		--*=*) ;;
		-?*) [[ "$values " == *" $w="* ]] && (( i++ )) ;;
		*) (( at == 0 )) && vm=$w; (( at++ )) ;;
		esac
	done
	local current=$words[CURRENT] prev=$words[CURRENT-1]
	if [[ $current == --*=* ]]; then
		prev=${current%%=*}
		compset -P '*='
	elif (( i > CURRENT )); then
		:
	elif [[ $current == -* ]]; then
		_describe -o option options
		return
	else
		prev=""
	fi
	if [[ -n $prev ]]; then
		for one in ${=values}; do
			[[ $one == "$prev="* ]] && value=${one#*=}
		done
		_iron_kind "$value"
		return
	fi
	i=0
	for one in ${=kinds}; do
		if (( i == at )) || [[ $one == *… ]]; then
			_iron_kind "$one"
			return
		fi
		(( i++ ))
	done
	return 1
}

# read by the completion system (then this file is the function's body), or by hand
if [[ ${funcstack[1]} == _iron ]]; then
	_iron "$@"
else
	compdef _iron iron
fi
