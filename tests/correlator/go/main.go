// Command logcheck reads a Tallystick log with the libraries of the Go checksum database, which know nothing of
// Tallystick: golang.org/x/mod/sumdb/tlog and note.
//
//	logcheck check DIR VKEY < proofs.json    checks the log in DIR and our proofs; prints what it has checked
//	logcheck sign ORIGIN                     prints a key and a checkpoint that it has signed with it
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// tiles reads tiles from a folder, by their C2SP paths: those of tlog without the height.
type tiles struct{ dir string }

func (t tiles) Height() int { return height }

func (t tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range want {
		data, err := os.ReadFile(t.path(tile))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tiles) path(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), "tile/8/")
	if tile.L == -1 {
		path = "entries" + strings.TrimPrefix(path, "data")
	}
	return filepath.Join(t.dir, "tile", filepath.FromSlash(path))
}

type proofs struct {
	Inclusion []struct {
		Index, Size int64
		Leaf        tlog.Hash
		Proof       tlog.RecordProof
		Root        tlog.Hash
	}
	Consistency []struct {
		Size1, Size2 int64
		Root1, Root2 tlog.Hash
		Proof        tlog.TreeProof
	}
}

type checked struct {
	Size, Entries, Inclusion, Consistency int64
}

func openCheckpoint(dir, vkey string) (tree tlog.Tree, err error) {
	message, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return tree, err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tree, err
	}
	opened, err := note.Open(message, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tree, fmt.Errorf("not a checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func checkEntries(files tiles, tree tlog.Tree, reader tlog.HashReader) (int64, error) {
	done := int64(0)
	for done < tree.N {
		tile := tlog.Tile{H: height, L: -1, N: done >> height, W: int(min(tree.N-done, 1<<height))}
		bundle, err := os.ReadFile(files.path(tile))
		if err != nil {
			return done, err
		}
		var indexes []int64
		for i := range int64(tile.W) {
			indexes = append(indexes, tlog.StoredHashIndex(0, done+i))
		}
		hashes, err := reader.ReadHashes(indexes)
		if err != nil {
			return done, err
		}
		for _, hash := range hashes {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return done, fmt.Errorf("bundle ends at leaf %d", done)
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			if tlog.RecordHash(bundle[2:end]) != hash {
				return done, fmt.Errorf("leaf %d is not the one in the tree", done)
			}
			bundle = bundle[end:]
			done++
		}
		if len(bundle) > 0 {
			return done, fmt.Errorf("bundle goes on after leaf %d", done-1)
		}
	}
	return done, nil
}

func check(dir, vkey string) (result checked, err error) {
	tree, err := openCheckpoint(dir, vkey)
	if err != nil {
		return result, err
	}
	result.Size = tree.N
	files := tiles{dir}
	reader := tlog.TileHashReader(tree, files)
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return result, err
	}
	if root != tree.Hash {
		return result, fmt.Errorf("the tiles lead to root %v, the checkpoint says %v", root, tree.Hash)
	}
	if result.Entries, err = checkEntries(files, tree, reader); err != nil {
		return result, err
	}
	var ours proofs
	if err := json.NewDecoder(os.Stdin).Decode(&ours); err != nil {
		return result, err
	}
	for _, p := range ours.Inclusion {
		if err := tlog.CheckRecord(p.Proof, p.Size, p.Root, p.Index, p.Leaf); err != nil {
			return result, fmt.Errorf("inclusion of %d in %d: %w", p.Index, p.Size, err)
		}
		theirs, err := tlog.ProveRecord(p.Size, p.Index, reader)
		if err != nil || fmt.Sprint(theirs) != fmt.Sprint(p.Proof) {
			return result, fmt.Errorf("inclusion of %d in %d: they prove it by %v (%v)", p.Index, p.Size, theirs, err)
		}
		result.Inclusion++
	}
	for _, p := range ours.Consistency {
		if err := tlog.CheckTree(p.Proof, p.Size2, p.Root2, p.Size1, p.Root1); err != nil {
			return result, fmt.Errorf("consistency of %d and %d: %w", p.Size1, p.Size2, err)
		}
		theirs, err := tlog.ProveTree(p.Size2, p.Size1, reader)
		if err != nil || fmt.Sprint(theirs) != fmt.Sprint(p.Proof) {
			return result, fmt.Errorf("consistency of %d and %d: they prove it by %v (%v)", p.Size1, p.Size2, theirs, err)
		}
		result.Consistency++
	}
	return result, nil
}

func sign(origin string) (map[string]string, error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("%s\n3\n%v\n", origin, tlog.RecordHash([]byte("root")))
	message, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return nil, err
	}
	return map[string]string{"skey": skey, "vkey": vkey, "checkpoint": string(bytes.TrimSpace(message)) + "\n"}, nil
}

func run(args []string) (any, error) {
	switch {
	case len(args) == 4 && args[1] == "check":
		return check(args[2], args[3])
	case len(args) == 3 && args[1] == "sign":
		return sign(args[2])
	}
	return nil, fmt.Errorf("usage: logcheck check DIR VKEY | logcheck sign ORIGIN")
}

func main() {
	result, err := run(os.Args)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "logcheck:", err)
		os.Exit(1)
	}
}
