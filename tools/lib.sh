# Shared by quickstart and test: numbered steps with timers, and what a person needs when one fails.
# shellcheck shell=bash

step_number=0
step_total=0
step_log=

say() { printf '%s\n' "$*"; }

# steps TOTAL LOGFILE
steps() {
	step_total=$1
	step_log=$2
	: >"$step_log"
}

# step "title" command…: runs it with its output in the log, shows a timer, stops everything when it fails.
# Set `hint` before to what to try when it fails.
step() {
	local title=$1 start=$SECONDS pid status=0 offset
	shift
	step_number=$((step_number + 1))
	offset=$(stat -c %s "$step_log")
	printf '%2d/%d  %-44s ' "$step_number" "$step_total" "$title"
	"$@" >>"$step_log" 2>&1 </dev/null &
	pid=$!
	if [ -t 1 ]; then
		while kill -0 "$pid" 2>/dev/null; do
			printf '\r%2d/%d  %-44s %4d s' "$step_number" "$step_total" "$title" $((SECONDS - start))
			sleep 0.2
		done
		printf '\r%2d/%d  %-44s ' "$step_number" "$step_total" "$title"
	fi
	wait "$pid" || status=$?
	if [ "$status" = 0 ]; then
		printf '%4d s  ok\n' $((SECONDS - start))
		return 0
	fi
	printf '%4d s  FAILED\n\n' $((SECONDS - start))
	say "The last lines of this step:"
	tail -c +$((offset + 1)) "$step_log" | tail -n 15 | sed 's/^/    /'
	say
	say "Cause:  $(tail -c +$((offset + 1)) "$step_log" | grep -iE 'error|fail|refused|denied|No such|cannot|unable' | tail -n 1 | cut -c1-200 | grep . || echo "the step ended with status $status")"
	say "Try:    ${hint:-see the whole log: $step_log}"
	exit 1
}

# packages_of KIND…: the names listed for these kinds, one a line.
packages_of() {
	local kind
	for kind in "$@"; do
		sed -n "s/^$kind  *//p" "$root/tools/packages"
	done | tr -s ' ' '\n' | sort -u
}

# install_packages KIND…: only what is missing; asks the archive only when something is.
install_packages() {
	local missing
	missing=$(packages_of "$@" | while read -r p; do
		dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || echo "$p"
	done)
	[ -n "$missing" ] || { echo "nothing to install"; return 0; }
	echo "installing:" $missing
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	# shellcheck disable=SC2086
	apt-get install -q -y --no-install-recommends $missing
}

need_root() {
	[ "$(id -u)" = 0 ] || { say "This needs root: sudo $0 $*" >&2; exit 1; }
}
