// Loads a compose file as today's `docker compose` does, with all profiles, and prints a line for each service.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	options, err := cli.NewProjectOptions([]string{path},
		cli.WithOsEnv,
		cli.WithName("distributed-trace"),
		cli.WithProfiles([]string{"*"}),
	)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	for _, name := range project.ServiceNames() {
		service := project.Services[name]
		var waits []string
		for other, dependency := range service.DependsOn {
			waits = append(waits, other+":"+dependency.Condition)
		}
		sort.Strings(waits)
		fmt.Println(name, service.Image, "privileged", service.Privileged, "after", strings.Join(waits, ","))
	}
	return nil
}
