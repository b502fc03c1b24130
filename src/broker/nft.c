#include "broker/nft.h"

#include <errno.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>

int nft_run(const char *text, struct error *reterr)
{
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	if (!nft)
		return error_set(reterr, -ENOMEM, "nftables cannot be used");
	nft_ctx_buffer_output(nft);
	nft_ctx_buffer_error(nft);
	int r = 0;
	if (nft_run_cmd_from_buffer(nft, text) != 0) {
		const char *complaint = nft_ctx_get_error_buffer(nft);
		size_t line = complaint ? strcspn(complaint, "\n") : 0;
		r = error_set(reterr, -EINVAL, "nftables refused the rules: %.*s", (int)line, complaint ? complaint : "");
	}
	nft_ctx_free(nft);
	return r;
}
